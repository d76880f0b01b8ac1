"""Raw files given to a model by hand are read as the dataset's YAML says, as preparation reads its source."""

from __future__ import annotations

import bz2
import gzip
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from flows.raw_events import reader_for
from flows.recommend import recommend, recommend_all
from modeling.config import ModelConfig
from modeling.model import SequenceModel
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema

YAML = """
name: laden
time_zone: Europe/Berlin
events:
  path: events.csv
  separator: ";"
  encoding: latin-1
  decimal: ","
  time_format: "%d.%m.%Y %H:%M"
  time_zone: Europe/Berlin
  null_words: [leer]
  columns: {user_id: Kunde, item_id: Artikel, timestamp: Zeit, action: Aktion, price: Preis}
items: {path: items.csv, separator: "|", columns: {item_id: Nummer, colour: Farbe}}
steps: [{join_items: {columns: [colour]}}]
features:
  item_id: category
  colour: category
  action: category
  price: {encode: [log1p, standardize]}
  hour: {column: timestamp, encode: hour}
"""
HEADER = "Kunde;Artikel;Zeit;Aktion;Preis\n"
ROWS = [
    ("ann", f"Tür-{n % 5}", f"0{1 + n // 8}.03.2026 20:{10 + n % 8}", "kauf" if n % 2 else "blick", "12,50")
    for n in range(32)
]
SESSION = "ann;Tür-1;04.03.2026 21:05;kauf;1.012,50\nann;Tür-2;04.03.2026 20:05;blick;leer\n"


@pytest.fixture(scope="module")
def laden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dataset's YAML, and a model of it that was not trained."""
    folder = tmp_path_factory.mktemp("laden")
    text = HEADER + "".join(";".join(row) + "\n" for row in ROWS)
    (folder / "events.csv").write_text(text, encoding="latin-1")
    (folder / "items.csv").write_text("Nummer|Farbe\n" + "".join(f"Tür-{n}|f{n % 2}\n" for n in range(5)))
    (folder / "laden.yaml").write_text(YAML)
    dataset = read_dataset(str(folder / "laden.yaml")).at(str(folder))
    sessions = prepare(
        Artifacts(folder / "root"), dataset, until=datetime(2026, 3, 4).date(), progress=lambda line: None
    )
    model = folder / "model"
    shutil.copytree(sessions.folder, model, ignore=shutil.ignore_patterns("sessions", "manifest.json"))
    torch.manual_seed(0)
    settings = {"body": {"dim": 8, "num_layers": 1}, "inputs": {"item_tower": "sum"}}
    made = SequenceModel(ModelConfig.model_validate(settings), FeatureSchema.read(sessions.folder / "schema.json"))
    made.next_item.popularity_V.fill_(1.0)
    made.save(model)
    return folder / "laden.yaml", model


def read(laden: tuple[Path, Path], path: Path) -> pl.DataFrame:
    reader = reader_for(str(laden[0]), laden[1])
    assert reader
    return reader.events(path, "--events")


def test_events_are_read_as_the_source_is(laden: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(HEADER + SESSION, encoding="latin-1")
    events = read(laden, tmp_path / "one.csv").sort("timestamp")
    assert events.to_dict(as_series=False) == {
        "user_id": ["ann", "ann"],
        "item_id": ["Tür-2", "Tür-1"],
        "timestamp": [datetime(2026, 3, 4, 19, 5, tzinfo=UTC), datetime(2026, 3, 4, 20, 5, tzinfo=UTC)],
        "action": ["blick", "kauf"],
        "price": [None, 1012.5],
    }
    said: list[str] = []
    answer = recommend(laden[1], events, 3, say=said.append)
    assert answer["unknown"] == [] and answer["borrowed"] == [] and len(answer["recommended"]) == 3, said


def json_lines(path: Path) -> None:
    names = HEADER.strip().split(";")
    rows = [dict(zip(names, line.split(";"), strict=True)) for line in SESSION.splitlines()]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="latin-1")


WRITTEN: dict[str, Callable[[Path], Any]] = {
    "plain.csv": lambda path: path.write_bytes((HEADER + SESSION).encode("latin-1")),
    "packed.csv.gz": lambda path: path.write_bytes(gzip.compress((HEADER + SESSION).encode("latin-1"))),
    "packed.CSV.bz2": lambda path: path.write_bytes(bz2.compress((HEADER + SESSION).encode("latin-1"))),
    "a[1]*.csv": lambda path: path.write_bytes((HEADER + SESSION).encode("latin-1")),
    "lines.jsonl": json_lines,
    "ours.csv": lambda path: path.write_text(
        "user_id,item_id,timestamp,action,price\nann,Tür-1,2026-03-04T21:05+01:00,kauf,1012.5\n"
        "ann,Tür-2,2026-03-04T20:05+01:00,blick,\n"
    ),
    "ours with their separator.csv": lambda path: path.write_bytes(
        "user_id;item_id;timestamp;action;price\nann;Tür-1;2026-03-04T21:05+01:00;kauf;1.012,5\n"
        "ann;Tür-2;2026-03-04T20:05+01:00;blick;\n".encode("latin-1")
    ),
    "half ours.csv": lambda path: path.write_bytes(("user_id;Artikel;Zeit;action;Preis\n" + SESSION).encode("latin-1")),
    "typed.parquet": lambda path: pl.DataFrame(
        {
            "Kunde": ["ann", "ann"],
            "Artikel": ["Tür-1", "Tür-2"],
            "Zeit": [datetime(2026, 3, 4, 20, 5, tzinfo=UTC), datetime(2026, 3, 4, 19, 5, tzinfo=UTC)],
            "Aktion": ["kauf", "blick"],
            "Preis": [1012.5, None],
        }
    ).write_parquet(path),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_other_forms_of_the_same_events_give_the_same_list(laden: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    plain, given = tmp_path / "first.csv", tmp_path / name
    WRITTEN["plain.csv"](plain)
    WRITTEN[name](given)
    wanted = recommend(laden[1], read(laden, plain), 4, say=lambda line: None)
    assert recommend(laden[1], read(laden, given), 4, say=lambda line: None) == wanted
    out = tmp_path / "out"
    done = recommend_all(laden[1], given, out, 4, dataset=str(laden[0]), say=lambda line: None)
    assert done["histories"] == 1 and done["unknown_items"] == 0
    assert pl.read_parquet(out / "lists.parquet")["item"].to_list() == wanted["recommended"]


def test_a_folder_of_files_is_one_table(laden: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = SESSION.splitlines(keepends=True)
    (tmp_path / "raw" / "more").mkdir(parents=True)
    (tmp_path / "raw" / "a.csv").write_bytes((HEADER + first).encode("latin-1"))
    (tmp_path / "raw" / "more" / "b.csv").write_bytes((HEADER + second).encode("latin-1"))
    assert read(laden, tmp_path / "raw").height == 2
    done = recommend_all(laden[1], tmp_path / "raw", tmp_path / "out", 4, dataset=str(laden[0]), say=lambda line: None)
    assert done["histories"] == 1


def test_a_value_that_does_not_fit_is_refused_with_its_row_or_counted(laden: tuple[Path, Path], tmp_path: Path) -> None:
    for name, row in (("time", "ben;Tür-1;2026-03-04;kauf;1,5"), ("price", "ben;Tür-1;04.03.2026 21:05;kauf;viel")):
        path = tmp_path / f"{name}.csv"
        path.write_bytes((HEADER + SESSION + row + "\n").encode("latin-1"))
        with pytest.raises(InputError, match=r"row 3 holds '(2026-03-04|viel)'"):
            read(laden, path)
        done = recommend_all(laden[1], path, tmp_path / name, 4, dataset=str(laden[0]), say=lambda line: None)
        assert (done["left_out_events"], done["histories"]) == (1, 1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            "Kunde;Ware\nann;x\n",
            "no column of items ('Artikel', as the dataset's YAML calls it, or item_id) among",
        ),
        ("a.txt", "Kunde;Artikel\nann;x\n", "give Parquet, CSV or JSON lines"),
        ("a.parquet", "Kunde;Artikel\nann;x\n", "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_so(
    laden: tuple[Path, Path], tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read(laden, tmp_path / name)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="there is no such file or folder"):
        read(laden, tmp_path / "nowhere.csv")


def test_new_items_are_read_as_the_item_table_is(laden: tuple[Path, Path], tmp_path: Path) -> None:
    reader = reader_for(str(laden[0]), laden[1])
    assert reader
    (tmp_path / "new.csv").write_text("Nummer|Farbe\nTür-9|f1\n")
    assert reader.items(tmp_path / "new.csv", "--new-items").rows() == [("Tür-9", "f1")]
    (tmp_path / "ours.csv").write_text("item_id,colour\nTür-9,f1\n")
    assert reader.items(tmp_path / "ours.csv", "--new-items").select("item_id", "colour").rows() == [("Tür-9", "f1")]
