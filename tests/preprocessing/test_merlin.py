"""Sessions as Merlin finds them: NVTabular's Dataset reads them, Transformers4Rec trains on them."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from preprocessing.engines.workflow import load
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts
from schemas.dataset import read_dataset
from schemas.features import FeatureSchema
from tests.preprocessing.small import at, dataset_of, run, write

PEER = Path(__file__).parents[2] / ".peers" / "t4rec" / "bin" / "python"
pytestmark = pytest.mark.filterwarnings("ignore")  # Merlin's imports
merlin = pytest.mark.skipif(find_spec("nvtabular") is None, reason="NVTabular is not installed; make install does")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days of the simulated shop: features and labels of events and of sessions."""
    shop = tmp_path_factory.mktemp("shop")
    simulate(Shop(days=5, users=150, items=200), shop)
    angle = {"column": "timestamp", "encode": "cyclic", "period": "hour", "part": "sin"}
    label = {"label_sessions": {"event_types": ["purchase"], "name": "bought"}}
    changes = {
        "steps": [{"join_items": {"columns": ["category", "brand"]}}, label, "dwell_time"],
        "labels": ["bought", {"column": "dwell", "per": "event"}],
        "features.angle": angle,
        "features.evening": {"column": "timestamp", "encode": "hour", "per": "session"},
        "features.spent": {"column": "price", "encode": "standardize", "per": "session"},
    }
    dataset = read_dataset("demo", changes).at(shop)
    quiet = {"progress": lambda line: None}
    return prepare(Artifacts(shop / "artifacts"), dataset, until=date(2026, 3, 5), **quiet).folder


@merlin
@pytest.mark.parametrize("by", ["folder", "files"])
def test_merlin_reads_all_sessions(view: Path, by: str) -> None:
    dataset_class = load().Dataset
    from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

    schema = TensorflowMetadata.from_proto_text_file(view).to_merlin_schema()
    files = sorted(view.glob("sessions/day=*/*.parquet"))
    if by == "folder":
        dataset = dataset_class(str(view / "sessions"), engine="parquet")  # finds the schema beside it
        assert dataset.schema == schema
    else:
        dataset = dataset_class(list(map(str, files)), engine="parquet", schema=schema)
    frame = dataset.to_ddf().compute(scheduler="sync")
    expected = pl.concat(pl.read_parquet(file, hive_partitioning=False) for file in files)
    assert frame["session_id"].tolist() == expected["session_id"].to_list()
    for name in FeatureSchema.read(view / "schema.json").columns:
        values = expected[name.name].to_list()
        assert [list(one) if name.per == "event" else one for one in frame[name.name]] == values
    days = [file.parent.name.removeprefix("day=") for file in files]
    assert sorted(set(frame["day"])) == days


@merlin
def test_merlin_infers_the_types_the_schema_says(view: Path) -> None:
    """From Parquet alone."""
    from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

    told = TensorflowMetadata.from_proto_text_file(view).to_merlin_schema()
    files = sorted(map(str, view.glob("sessions/day=*/*.parquet")))
    inferred = load().Dataset(files, engine="parquet").schema
    for name, column in told.column_schemas.items():
        assert (name, inferred[name].is_list) == (name, column.is_list)
        if column.dtype.name != "str":  # pandas calls text an object
            assert (name, inferred[name].dtype.name) == (name, column.dtype.name)


@merlin
def test_merlin_reads_labels_per_event(tmp_path: Path) -> None:
    from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

    rows = [("a", item, at(day, 12, minute), minute) for day in (0, 1) for minute, item in enumerate("xyz")]
    write(tmp_path, rows, ("user_id", "item_id", "timestamp", "clicks"))
    labels = [{"column": name, "per": "event"} for name in ("dwell", "clicks")]
    view = run(tmp_path, dataset_of(tmp_path, columns=("clicks",), steps=["dwell_time"], labels=labels)).folder
    schema = TensorflowMetadata.from_proto_text_file(view).to_merlin_schema()
    dataset = load().Dataset(str(view / "sessions"), engine="parquet")
    assert dataset.schema == schema
    frame = dataset.to_ddf().compute(scheduler="sync")
    assert [list(one) for one in frame["clicks"]] == [[0, 1, 2]] * 2
    assert [list(one[:2]) for one in frame["dwell"]] == [[60, 60]] * 2 and all(
        one[2] != one[2] for one in frame["dwell"]
    )
    inferred = load().Dataset(sorted(map(str, view.glob("sessions/day=*/*.parquet"))), engine="parquet").schema
    for name in ("dwell", "clicks"):
        told = schema.column_schemas[name]
        assert (inferred[name].dtype.name, inferred[name].is_list) == (told.dtype.name, True)


def test_columns_of_lists_are_not_in_the_schema(tmp_path: Path) -> None:
    rows = [("a", item, at(day, 12, minute), ["red", item]) for day in (0, 1) for minute, item in enumerate("xyz")]
    write(tmp_path, rows, ("user_id", "item_id", "timestamp", "words"))
    view = run(tmp_path, dataset_of(tmp_path, columns=("words",), features={"words": "category"})).folder
    text = (view / "schema.pbtxt").read_text()
    assert "# words is left out" in text and 'name: "words"' not in text
    assert pl.read_parquet_schema(next(view.glob("sessions/day=*/*.parquet")))["words"] == pl.List(pl.List(pl.Int32))


@pytest.mark.skipif(not PEER.exists(), reason=f"Transformers4Rec is not installed in {PEER.parents[1]}")
def test_transformers4rec_trains(view: Path) -> None:
    """GPT-2, causal, one step on the first batch."""
    script = Path(__file__).with_name("t4rec_step.py")
    done = subprocess.run([PEER, script, view, "20"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    schema = FeatureSchema.read(view / "schema.json")
    assert told["finite"] and 4 < told["loss"] < 7  # about the logarithm of the number of items
    for column in schema.columns:
        assert told["batch"][column.name] == ([32, 20] if column.per == "event" else [32])
        if column.kind == "categorical":
            assert told["tables"][column.name][0] == column.cardinality
    first = pl.read_parquet(min(view.glob("sessions/day=*/*.parquet")))
    assert told["targets"] == first["bought"].head(32).to_list()
