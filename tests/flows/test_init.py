"""`overnight init`: files of many shapes, from one shop, are read to the same events; what cannot be guessed is said."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from flows.init.command import begin, dataset_name, read_given
from flows.init.words import name_score
from preprocessing.features.uses import with_text_types
from preprocessing.simulate import Shop, simulate
from preprocessing.source.events import EventFiles
from schemas.dataset import load_dataset
from schemas.errors import InputError

ACTIONS = {"view": "Ansicht", "cart": "Warenkorb", "purchase": "Kauf"}
KEYS = ["user_id", "item_id", "timestamp"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days of a shop with 150 users, without the rows that are damaged on purpose."""
    folder = tmp_path_factory.mktemp("shop")
    simulate(Shop(days=4, users=150, seed=5), folder)
    return folder


@pytest.fixture(scope="module")
def events(shop: Path) -> pl.DataFrame:
    """Its events with whole seconds, ids as numbers too, and the category of each item."""
    rows = pl.read_parquet(shop / "events").drop_nulls(["user_id", "item_id", "timestamp"])
    rows = rows.join(pl.read_parquet(shop / "items.parquet").select("item_id", "category"), on="item_id")
    at = pl.col("timestamp").dt.replace_time_zone(None).dt.truncate("1s")
    rows = rows.with_columns(
        at.alias("at"), user=pl.col("user_id").rank("dense") + 50_000, item=pl.col("item_id").rank("dense")
    )
    return (
        rows.filter(pl.col("at").dt.year() == 2026)
        .with_columns(pl.col("price").fill_null(1.0))
        .sort("at", "user_id", "item_id")
    )


def started(folder: Path, source: Path, **given: str) -> dict[str, object]:
    """What `overnight init` did."""
    return begin(folder, str(source), given, lambda line: None)


def read(folder: Path) -> pl.DataFrame:
    """The events that the written dataset gives: ids as text, times in UTC."""
    dataset = with_text_types(load_dataset(str(folder / f"{dataset_name(folder)}.yaml")))
    rows = EventFiles(dataset).scan().select(pl.col("user_id", "item_id").cast(pl.String), "timestamp").collect()
    return rows.sort(KEYS)


def epoch(unit: str) -> pl.Expr:
    return pl.col("at").dt.epoch(unit)  # type: ignore[arg-type]


def text(pattern: str) -> pl.Expr:
    return pl.col("at").dt.strftime(pattern)


def comma(column: str) -> pl.Expr:
    return pl.col(column).round(2).cast(pl.String).str.replace(".", ",", literal=True)


CSV: dict[str, tuple[dict[str, pl.Expr], dict[str, object]]] = {
    "seconds": (
        {"visitorid": pl.col("user"), "itemid": pl.col("item"), "timestamp": epoch("s"), "event": pl.col("event_type")},
        {},
    ),
    "milliseconds": (
        {"ts": epoch("ms"), "customer_id": pl.col("user"), "sku": pl.col("item_id"), "price": pl.col("price")},
        {},
    ),
    "iso": ({"user": pl.col("user_id"), "product": pl.col("item_id"), "at": text("%Y-%m-%dT%H:%M:%SZ")}, {}),
    "german": (
        {
            "Kundennummer": pl.col("user"),
            "Artikelnr": pl.col("item").cast(pl.String).str.zfill(6),
            "Zeitpunkt": text("%d.%m.%Y %H:%M:%S"),
            "Aktion": pl.col("event_type").replace(ACTIONS),
            "Stückpreis": comma("price"),
            "Warengruppe": pl.col("category"),
        },
        {"separator": ";", "encoding": "windows-1252"},
    ),
    "two_columns": (
        {"Kunde": pl.col("user"), "Artikel": pl.col("item"), "Datum": text("%d.%m.%Y"), "Uhrzeit": text("%H:%M:%S")},
        {"separator": ";"},
    ),
    "french": (
        {
            "id_client": pl.col("user"),
            "référence": pl.col("item_id"),
            "horodatage": text("%d/%m/%Y %H:%M:%S"),
            "prix": pl.col("price"),
        },
        {"separator": ";"},
    ),
    "spanish": ({"fecha": text("%Y-%m-%d %H:%M:%S"), "cliente": pl.col("user_id"), "producto": pl.col("item_id")}, {}),
    "chinese": (
        {"用户编号": pl.col("user"), "商品编号": pl.col("item"), "行为类型": pl.col("event_type"), "时间": epoch("s")},
        {},
    ),
    "chinese_bytes": (
        {"用户": pl.col("user"), "商品": pl.col("item"), "时间": text("%Y-%m-%d %H:%M:%S"), "类目": pl.lit("家具和灯")},
        {"encoding": "gb18030"},
    ),
    "american": (
        {"CustomerID": pl.col("user"), "StockCode": pl.col("item_id"), "InvoiceDate": text("%m/%d/%Y %I:%M:%S %p")},
        {},
    ),
    "no_header": (
        {"a": pl.col("user"), "b": pl.col("item"), "c": epoch("s"), "d": pl.col("event_type")},
        {"include_header": False},
    ),
    "no_names": (
        {
            "c1": pl.col("price"),
            "c2": epoch("s"),
            "c3": pl.col("item"),
            "c4": pl.col("event_type"),
            "c5": pl.col("user"),
        },
        {},
    ),
    "no_names_tabs": (
        {"x": pl.col("item_id"), "y": text("%Y-%m-%d %H:%M:%S"), "z": pl.col("user_id")},
        {"separator": "\t"},
    ),
}


@pytest.mark.parametrize("shape", CSV)
def test_a_csv_of_any_shape_gives_the_events_that_are_in_it(shape: str, events: pl.DataFrame, tmp_path: Path) -> None:
    columns, how = CSV[shape]
    options = {name: value for name, value in how.items() if name != "encoding"}
    content = events.select(**columns).write_csv(**options)  # type: ignore[call-overload]
    (tmp_path / "events.csv").write_bytes(content.encode(str(how.get("encoding", "utf-8"))))
    done = started(tmp_path / "my-shop", tmp_path / "events.csv")
    user = "user_id" if "user_id" in {expr.meta.output_name() for expr in columns.values()} else "user"
    item = next(expr for expr in columns.values() if expr.meta.root_names()[:1] in (["item"], ["item_id"]))
    right = events.select(pl.col(user).cast(pl.String).alias("user_id"), item.cast(pl.String).alias("item_id"), "at")
    right = right.with_columns(pl.col("at").dt.replace_time_zone("UTC").alias("timestamp")).select(KEYS).sort(KEYS)
    assert read(tmp_path / "my-shop").equals(right), done["columns"]
    described = (tmp_path / "my-shop" / "my-shop.yaml").read_text()
    assert all(f"# {ours}: guess, " in described for ours in KEYS), described


def test_leading_zeros_stay_and_prices_are_numbers(events: pl.DataFrame, tmp_path: Path) -> None:
    columns, _ = CSV["german"]
    (tmp_path / "e.csv").write_bytes(events.select(**columns).write_csv(separator=";").encode("windows-1252"))
    started(tmp_path / "shop", tmp_path / "e.csv")
    dataset = with_text_types(load_dataset(str(tmp_path / "shop" / "shop.yaml")))
    rows = EventFiles(dataset).scan().collect()
    assert rows["item_id"].str.len_chars().unique().to_list() == [6] and rows["item_id"].str.starts_with("0").all()
    assert abs(rows["price"].sum() - events["price"].round(2).sum()) < 0.01
    steps = {step.name: step.options for step in dataset.steps}
    assert set(steps["filter_event_types"]["keep"]) == set(ACTIONS.values())


def test_lists_in_json_give_a_row_each(events: pl.DataFrame, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "log.jsonl.gz", "wt") as file:
        for row in events.iter_rows(named=True):
            items = [{"item_id": row["item_id"], "price": row["price"]}, {"item_id": "gift", "price": 0.0}]
            moment = int(row["at"].timestamp() * 1_000_000)
            line = {
                "user_pseudo_id": row["user_id"],
                "event_timestamp": moment,
                "geo": {"country": "DE"},
                "items": items,
            }
            print(json.dumps(line), file=file)
    done = started(tmp_path / "web", tmp_path / "log.jsonl.gz")
    assert done["columns"] == {
        "user_id": "user_pseudo_id",
        "item_id": "items[].item_id",
        "timestamp": "event_timestamp",
        "price": "items[].price",
    }
    assert read(tmp_path / "web").height == 2 * events.height


def test_a_folder_with_events_and_items_is_both(shop: Path, tmp_path: Path) -> None:
    done = started(tmp_path / "shop", shop)
    dataset = load_dataset(str(tmp_path / "shop" / "shop.yaml"))
    assert dataset.events.path == "events" and dataset.items and dataset.items.path == "items.parquet"
    assert dataset.items.columns == {"item_id": "item_id", "category": "category", "brand": "brand"}
    assert any("have no" in str(warning) for warning in done["warnings"])  # type: ignore[attr-defined]


def test_sessions_of_the_files_are_found_by_content(events: pl.DataFrame, tmp_path: Path) -> None:
    of_day = pl.col("user") * 10 + pl.col("at").dt.day()
    rows = events.select(a=of_day, b="user", c="item", d=text("%Y-%m-%d %H:%M:%S"))
    rows.write_csv(tmp_path / "e.csv")
    assert started(tmp_path / "x", tmp_path / "e.csv")["columns"] == {
        "user_id": "b",
        "session_id": "a",
        "item_id": "c",
        "timestamp": "d",
    }
    assert load_dataset(str(tmp_path / "x" / "x.yaml")).sessions.rule == "given"


def test_order_alone_makes_histories(tmp_path: Path) -> None:
    rows = [(user, item, place) for user in range(9) for place, item in enumerate((user + 1, user + 2, 3 * user, 7))]
    pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row").write_parquet(tmp_path / "e.parquet")
    started(tmp_path / "h", tmp_path / "e.parquet")
    dataset = load_dataset(str(tmp_path / "h" / "h.yaml"))
    assert (dataset.sessions.rule, dataset.split) == ("history", "leave_one_out")
    assert dataset.events.types["item_id"].type == "integer"


def test_long_histories_are_read_longer_and_what_is_cut_is_said(tmp_path: Path) -> None:
    rows = [(user, (user + place) % 40, place) for user in range(5) for place in range(300)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row").write_parquet(tmp_path / "e.parquet")
    started(tmp_path / "h", tmp_path / "e.parquet")
    assert load_dataset(str(tmp_path / "h" / "h.yaml")).sessions.max_length == 200
    assert "33% of the events lie beyond, of 50 it were 83%" in " ".join(
        (tmp_path / "h" / "h.yaml").read_text().replace("#", "").split()
    )


def test_without_a_time_the_columns_are_named_and_nothing_is_written(events: pl.DataFrame, tmp_path: Path) -> None:
    events.select("user_id", "item_id", "price").write_csv(tmp_path / "e.csv")
    with pytest.raises(
        InputError, match=r"No column looks like a time .*user_id \(text: .*--column timestamp=NAME.*Nothing"
    ):
        started(tmp_path / "shop", tmp_path / "e.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["e.csv"]


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("e.csv", b"user,item,time\n", "there are no rows in it"),
        ("e.csv", b"", "it has no bytes"),
        ("e.csv", b"abc\ndef\n", "one field, whatever separates them"),
        ("e.zip", b"PK\x03\x04", "unpack it"),
        ("e.jsonl", b"{broken\n", "line 1: is no JSON"),
    ],
)
def test_files_without_events_are_answered(name: str, content: bytes, answer: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=answer):
        started(tmp_path / "shop", tmp_path / name)
    assert not (tmp_path / "shop").exists()


def test_a_column_that_is_named_is_not_guessed(events: pl.DataFrame, tmp_path: Path) -> None:
    rows = events.select(
        user="user_id", item="item_id", label="category", time=text("%Y-%m-%d"), when=text("%Y-%m-%d %H:%M:%S")
    )
    rows.write_csv(tmp_path / "e.csv")
    assert started(tmp_path / "a", tmp_path / "e.csv", item_id="label")["columns"]["item_id"] == "label"  # type: ignore[index]
    with pytest.raises(InputError, match="Did you mean 'label'"):
        started(tmp_path / "b", tmp_path / "e.csv", item_id="labels")
    with pytest.raises(InputError, match="its values are no times"):
        started(tmp_path / "b", tmp_path / "e.csv", timestamp="label")
    assert not (tmp_path / "b").exists()
    with pytest.raises(InputError, match="give each of our names once"):
        read_given(["item_id"])


def test_months_and_days_that_could_be_swapped_are_said(tmp_path: Path) -> None:
    days = [f"0{1 + n % 6}/0{1 + n % 5}/2024 10:{n % 60:02d}" for n in range(60)]
    rows = pl.DataFrame({"user": [n % 7 for n in range(60)], "item": [n % 11 for n in range(60)], "time": days})
    rows.write_csv(tmp_path / "e.csv")
    done = started(tmp_path / "s", tmp_path / "e.csv")
    assert any("would fit as well" in str(warning) for warning in done["warnings"])  # type: ignore[attr-defined]
    assert "AMBIGUOUS" in (tmp_path / "s" / "s.yaml").read_text()


@pytest.mark.parametrize("owner", ["order_id", "user_id"])
def test_events_of_one_moment_have_no_order_and_that_is_said(owner: str, tmp_path: Path) -> None:
    """All lines of an order have the time of the order: a session, of the files or of a user, has no order of its own."""
    rows = [
        (
            f"o{order}",
            f"u{order % 40}",
            f"2024-05-{1 + order % 20:02d} 10:{order % 60:02d}:00",
            f"sku{(order * 7 + line) % 50}",
        )
        for order in range(200)
        for line in range(3)
    ]
    table = pl.DataFrame(rows, schema=["order_id", "user_id", "time", "product"], orient="row")
    table = table if owner == "order_id" else table.drop("order_id")
    table.write_csv(tmp_path / "e.csv")
    said = " ".join(map(str, started(tmp_path / "s", tmp_path / "e.csv")["warnings"]))  # type: ignore[call-overload]
    assert "100% of the events have the same time as another of their" in said and "--column position=NAME" in said
    ordered = table.with_columns(pl.int_range(pl.len()).alias("position"))
    ordered.write_csv(tmp_path / "n.csv")
    said = " ".join(map(str, started(tmp_path / "n", tmp_path / "n.csv", position="position")["warnings"]))  # type: ignore[call-overload]
    assert "have the same time" not in said


def test_a_folder_of_two_formats_is_named_and_not_a_dot(events: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    few = events.head(50).select("user_id", "item_id", "timestamp")
    few.write_csv(tmp_path / "in" / "day-1.csv")
    few.write_parquet(tmp_path / "in" / "day-1.parquet")
    with pytest.raises(InputError) as caught:
        from flows.init.look import look

        look(str(tmp_path / "in"), ".")
    assert "'.'" not in str(caught.value) and f"--from {tmp_path / 'in'} mixes" in str(caught.value)


def test_names_with_spaces_can_be_pasted_into_a_shell(events: pl.DataFrame, tmp_path: Path) -> None:
    source = tmp_path / "my events #1"
    source.mkdir()
    events.select("user_id", "item_id", "timestamp").write_parquet(source / "e.parquet")
    said: list[str] = []
    begin(tmp_path / "my shop", str(source / "e.parquet"), {}, said.append)
    assert f"cd '{tmp_path / 'my shop'}'," in said[-1]
    assert f"OVERNIGHT_EVENTS='{source}'\n" in (tmp_path / "my shop" / ".env.example").read_text()


def test_what_is_there_is_never_written_over(events: pl.DataFrame, tmp_path: Path) -> None:
    events.select("user_id", "item_id", "timestamp").write_parquet(tmp_path / "e.parquet")
    project = tmp_path / "shop"
    project.mkdir()
    (project / "prefect.yaml").write_text("mine")
    first = started(project, tmp_path / "e.parquet")
    assert first["kept"] == ["prefect.yaml"] and (project / "prefect.yaml").read_text() == "mine"
    described = (project / "shop.yaml").read_text()
    (project / "shop.yaml").write_text(described + "# mine\n")
    second = started(project, tmp_path / "e.parquet")
    assert second["written"] == [] and (project / "shop.yaml").read_text().endswith("# mine\n")
    assert not list(project.glob(".init-*"))


def test_the_folder_holds_what_serves_and_ships_it(events: pl.DataFrame, tmp_path: Path) -> None:
    events.select("user_id", "item_id", "timestamp").write_parquet(tmp_path / "e.parquet")
    started(tmp_path / "My Shöp", tmp_path / "e.parquet")
    folder = tmp_path / "My Shöp"
    deployments = yaml.safe_load((folder / "prefect.yaml").read_text())["deployments"]
    assert {entry["entrypoint"] for entry in deployments if "parameters" not in entry} == {"flows.by_form.prune"}
    assert "my-shop.yaml" in str(deployments) and "@" not in (folder / "README.md").read_text()
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    assert {"postgres", "server", "mlflow", "pages", "deploy", "worker", "worker-gpu"} == set(compose["services"])
    pins = (folder / "requirements.txt").read_text()
    assert "polars==" in pins and "+cpu" not in pins


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Kundennummer", "user"),
        ("visitorId", "user"),
        ("items[].id", "item"),
        ("Bestelldatum", "time"),
        ("用户ID", "user"),
        ("商品编号", "item"),
        ("event_time", "time"),
        ("event_type", "event_type"),
        ("UnitPrice", "price"),
        ("товар_id", "item"),
    ],
)
def test_names_say_roles(name: str, role: str) -> None:
    assert name_score(name, role)


@pytest.mark.parametrize(("name", "role"), [("user_agent", "user"), ("product_name", "item"), ("time_zone", "time")])
def test_names_of_something_else_do_not(name: str, role: str) -> None:
    assert name_score(name, role) == 0


def test_the_working_folder_says_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.here import dataset_here, deployments_folder

    monkeypatch.chdir(tmp_path)
    assert dataset_here() == "demo"
    writes: Callable[[str], int] = (tmp_path / "prefect.yaml").write_text
    writes("deployments: [{entrypoint: flows.retrain.retrain, parameters: {data: {dataset: mine.yaml}}}]")
    assert dataset_here() == "mine.yaml" and deployments_folder() == tmp_path
    for broken in ("deployments: 3", "[", "- 1", "deployments: [{entrypoint: other.py:flow}]"):
        writes(broken)
        assert dataset_here() == "demo" and deployments_folder() != tmp_path
