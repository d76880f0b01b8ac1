"""Shipped datasets of public data: a few rows in the very layout of their files become sessions."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from tests.preprocessing.small import NOW, decoded, sessions_of

YOOCHOOSE = """\
1,2014-04-07T10:51:09.277Z,214536502,0
1,2014-04-07T10:54:09.868Z,214536500,0
1,2014-04-07T10:54:46.998Z,214536500,0
2,2014-04-08T09:56:37.614Z,214662742,0
2,2014-04-08T09:57:19.373Z,214662742,S
2,2014-04-08T09:58:37.446Z,214536500,0
"""

REES46 = """\
event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde
2019-10-01 00:00:01 UTC,view,3900821,2053013552326770905,appliances.environment.water_heater,aqua,33.20,541312140,72d76fde
2019-10-01 00:00:05 UTC,cart,3900821,2053013552326770905,appliances.environment.water_heater,aqua,33.20,541312140,72d76fde
2019-10-02 00:00:01 UTC,view,17200506,2053013559792632471,furniture.living_room.sofa,,543.10,519107250,566511c2
2019-10-02 00:00:04 UTC,view,44600062,2103807459595387724,,shiseido,35.79,519107250,566511c2
2019-10-02 00:00:05 UTC,view,44600062,2103807459595387724,,shiseido,35.79,554748717,
"""


def prepared(name: str, folder: Path) -> Manifest:
    """The dataset as it comes, with its files in the folder."""
    return prepare(Artifacts(folder / "artifacts"), read_dataset(name).at(folder), now=NOW)


def test_yoochoose(tmp_path: Path) -> None:
    (tmp_path / "yoochoose-clicks.dat").write_text(YOOCHOOSE)
    manifest = prepared("yoochoose", tmp_path)
    assert manifest.facts["quarantined"] == {}
    assert manifest.facts["dropped"]["drop_repeats"] == 2
    sessions = sessions_of(manifest)
    assert sessions["length"].to_list() == [2, 2]
    assert {"category", "weekday_sin", "item_age"} <= set(sessions.columns)


def test_rees46(tmp_path: Path) -> None:
    (tmp_path / "2019-Oct.csv.gz").write_bytes(gzip.compress(REES46.encode()))
    manifest = prepared("rees46", tmp_path)
    assert manifest.facts["quarantined"] == {"session_id_null": 1}
    assert manifest.facts["dropped"]["drop_repeats"] == 1
    sessions = sessions_of(manifest)
    assert sessions["length"].to_list() == [2, 2]
    assert sessions["price"].list.len().to_list() == [2, 2]


def test_otto(tmp_path: Path) -> None:
    start = int(datetime(2022, 8, 1, 10, tzinfo=UTC).timestamp()) * 1000
    day, minute = 86_400_000, 60_000
    visits = [
        (0, [(5, start), (6, start + minute)]),
        (1, []),
        (2, [(6, start + day)] * 2),
        (3, [(5, start + day), (6, start + day)]),
    ]
    lines = [
        {"session": session, "events": [{"aid": aid, "ts": time, "type": "clicks"} for aid, time in events]}
        for session, events in visits
    ]
    (tmp_path / "otto-recsys-train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    dataset = read_dataset("otto").model_copy(update={"features": {}}).at(tmp_path)
    manifest = prepare(Artifacts(tmp_path / "artifacts"), dataset, now=NOW)
    assert manifest.facts["rows_in"] == 6 and manifest.facts["quarantined"] == {}
    assert decoded(manifest) == [["5", "6"], ["5", "6"]]


def test_diginetica(tmp_path: Path) -> None:
    rows = ["1;NA;81766;526309;2016-05-09", "1;NA;31331;1031018;2016-05-09", "1;NA;32118;243569;2016-05-09"]
    rows += ["2;7;81766;10;2016-05-10", "2;7;32118;20;2016-05-10", "2;7;31331;5;2016-05-10"]
    text = "\r\n".join(["sessionId;userId;itemId;timeframe;eventdate", *rows * 1])
    (tmp_path / "train-item-views.csv").write_text(text)
    dataset = read_dataset("diginetica").model_copy(update={"features": {}}).at(tmp_path)
    manifest = prepare(Artifacts(tmp_path / "artifacts"), dataset, now=NOW)
    assert decoded(manifest) == [["32118", "81766", "31331"], ["31331", "81766", "32118"]]


def test_retailrocket(tmp_path: Path) -> None:
    first = 1_433_221_332_117
    rows = []
    for day in range(2):
        for number, event in enumerate(("view", "addtocart")):
            rows.append(f"{first + day * 86_400_000 + number},{257597 + day},{event},{355908 + number},")
    rows.append(f"{first + 86_400_005},257598,transaction,355910,4000")
    (tmp_path / "events.csv").write_text("\n".join(["timestamp,visitorid,event,itemid,transactionid", *rows]))
    dataset = read_dataset("retailrocket").model_copy(update={"features": {}}).at(tmp_path)
    manifest = prepare(Artifacts(tmp_path / "artifacts"), dataset, now=NOW)
    assert decoded(manifest) == [
        ["355908", "355909"],
        ["355908", "355909", None],
    ]  # 355910 is new on the day tested


def test_mind(tmp_path: Path) -> None:
    rows = [
        "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0",
        "2\tU13740\t11/11/2019 9:08:12 AM\t\tN20678-0 N39317-1 N58114-0",
        "3\tU91836\t11/12/2019 6:11:30 PM\tN31739\tN20678-1 N39317-0",
        "4\tU91836\t11/12/2019 6:12:30 PM\tN31739\tN39317-0 N55689-1",
    ]
    (tmp_path / "behaviors.tsv").write_text("\n".join(rows) + "\n")
    dataset = read_dataset("mind").model_copy(update={"features": {}}).at(tmp_path)
    manifest = prepare(Artifacts(tmp_path / "artifacts"), dataset, now=NOW)
    assert manifest.facts["rows_in"] == 9 and manifest.facts["dropped"]["filter_event_types"] == 5
    assert decoded(manifest) == [["N55689", "N39317"], [None, "N55689"]]
    assert sessions_of(manifest)["start"].to_list()[1] == datetime(2019, 11, 12, 18, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_ga4(tmp_path: Path, ending: str) -> None:
    first = datetime(2024, 1, 1, 10, tzinfo=UTC)
    rows = []
    for number, (name, items) in enumerate(
        [
            ("page_view", []),
            ("view_item", ["A"]),
            ("add_to_cart", ["A", "B"]),
            ("view_item", ["B"]),
            ("purchase", ["C"]),
        ]
    ):
        time = first + timedelta(minutes=number, days=number // 3)
        rows.append(
            {
                "event_date": f"{time:%Y%m%d}",
                "event_timestamp": int(time.timestamp()) * 1_000_000,
                "event_name": name,
                "user_pseudo_id": "1234.5678",
                "geo": {"continent": "Europe", "country": "Germany"},
                "items": [
                    {"item_id": item, "item_category": "shoes", "price": 9.5, "quantity": None} for item in items
                ],
            }
        )
    (tmp_path / "events").mkdir()
    frame = pl.DataFrame(rows)
    place = tmp_path / "events" / f"000000000000.{ending}"
    frame.write_parquet(place) if ending == "parquet" else frame.write_ndjson(place)
    dataset = read_dataset("ga4").model_copy(update={"features": {}}).at(tmp_path)
    manifest = prepare(Artifacts(tmp_path / "artifacts"), dataset, now=NOW)
    assert manifest.facts["rows_in"] == 5 and manifest.facts["quarantined"] == {}
    assert decoded(manifest) == [["A", "B"], ["B", None]]


def test_hm(tmp_path: Path) -> None:
    ids = ("0663713001", "0541518023")
    baskets = [(day, user) for day in ("2018-09-20", "2018-09-21") for user in "abcde"]
    rows = [f"{day},{user},{item},0.0508,2" for day, user in baskets for item in ids for _ in range(2)]
    (tmp_path / "transactions_train.csv").write_text(
        "\n".join(["t_dat,customer_id,article_id,price,sales_channel_id", *rows])
    )
    articles = [f'{item},{item[:7]},"Strap top, 2-pack",Vest top,Jersey Basic' for item in ids]
    header = "article_id,product_code,prod_name,product_type_name,department_name"
    (tmp_path / "articles.csv").write_text("\n".join([header, *articles]))
    manifest = prepare(Artifacts(tmp_path / "artifacts"), read_dataset("hm").at(tmp_path), now=NOW)
    assert manifest.facts["rows_in"] == 40 and manifest.facts["dropped"]["duplicates"] == 20
    assert decoded(manifest) == [["0541518023", "0663713001"]] * 10
