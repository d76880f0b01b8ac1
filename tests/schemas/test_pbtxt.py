"""schema.pbtxt: what Merlin reads is what the feature schema says."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import pbtxt
from schemas.features import FeatureColumn, FeatureSchema, LabelColumn

pytestmark = pytest.mark.filterwarnings("ignore")  # Merlin's imports
merlin = pytest.mark.skipif(find_spec("merlin") is None, reason="NVTabular is not installed; make install does")
ITEMS = FeatureColumn(
    name="item_id", kind="categorical", source="sku", dtype="int32", cardinality=1_003,
    vocabulary="vocabularies/item_id.parquet",
)  # fmt: skip


def categorical(name: str, **more: Any) -> FeatureColumn:
    return FeatureColumn(
        **{"name": name, "kind": "categorical", "source": name, "dtype": "int32", "cardinality": 8} | more
    )


def continuous(name: str, **more: Any) -> FeatureColumn:
    return FeatureColumn(**{"name": name, "kind": "continuous", "source": name, "dtype": "float32"} | more)


def written(
    folder: Path,
    *columns: FeatureColumn,
    stored: dict[str, str] | None = None,
    labels: tuple[str, ...] = (),
    event_labels: tuple[str, ...] = (),
    **parts: Any,
) -> Path:
    """The file of these columns beside the items; `stored`: types of labels, and of columns that are not as the schema says."""
    columns = (ITEMS, *columns)
    dtypes = {one.name: f"list({one.dtype})" if one.per == "event" else one.dtype for one in columns}
    parts = {"dataset": "shop", "max_length": 20, "split": "day"} | parts
    told = [LabelColumn(name=name, per="session", source=name) for name in labels]
    told += [LabelColumn(name=name, per="event", source=name) for name in event_labels]
    schema = FeatureSchema(columns=columns, labels=tuple(told), **parts)
    pbtxt.write(folder / "schema.pbtxt", schema, {"session_id": "int64", "user_id": "string"} | dtypes | (stored or {}))
    return folder


def read(folder: Path) -> dict[str, Any]:
    """Merlin's columns."""
    import dask

    dask.config.set({"dataframe.query-planning": False, "dataframe.convert-string": False})
    from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

    return dict(TensorflowMetadata.from_proto_text_file(folder).to_merlin_schema().column_schemas)


def tags(column: Any) -> set[str]:
    return {tag.value for tag in column.tags}


@merlin
def test_the_items(tmp_path: Path) -> None:
    items = read(written(tmp_path))["item_id"]
    assert tags(items) == {"categorical", "list", "sequence", "item", "id"}
    assert (items.dtype.name, items.is_list, items.is_ragged) == ("int32", True, True)
    assert (items.value_count.min, items.value_count.max) == (1, 20)
    assert (items.int_domain.min, items.int_domain.max, items.int_domain.name) == (0, 1_002, "item_id")
    assert items.properties["cat_path"] == "vocabularies/item_id.parquet"
    assert items.properties["embedding_sizes"] == {"cardinality": 1_003, "dimension": 77}


@merlin
def test_features_of_items_of_moments_and_of_sessions(tmp_path: Path) -> None:
    columns = read(
        written(
            tmp_path,
            categorical("brand", per_item=True),
            categorical("hour", source="timestamp"),
            continuous("price", per_item=True),
            continuous("angle", source="timestamp", transform=("cyclic",)),
            categorical("device", per="session"),
            continuous("age", per="session"),
        )
    )
    told = {"list", "sequence"}
    assert tags(columns["brand"]) == {"categorical", "item"} | told
    assert tags(columns["hour"]) == {"categorical", "time"} | told
    assert tags(columns["price"]) == {"continuous", "item"} | told
    assert tags(columns["angle"]) == {"continuous", "time"} | told
    assert tags(columns["device"]) == {"categorical", "session", "context"}
    assert tags(columns["age"]) == {"continuous", "session", "context"}
    assert [columns[name].is_list for name in ("price", "device", "age")] == [True, False, False]
    assert [columns[name].dtype.name for name in ("price", "device", "age")] == ["float32", "int32", "float32"]
    assert columns["price"].float_domain is None
    assert (columns["angle"].float_domain.min, columns["angle"].float_domain.max) == (-1, 1)
    assert columns["device"].int_domain.max == 7


@merlin
def test_ids_and_labels(tmp_path: Path) -> None:
    stored = {"bought": "boolean", "spent": "float64", "stars": "int8", "when": "date"}
    columns = read(written(tmp_path, stored=stored, labels=tuple(stored)))
    assert list(columns) == ["session_id", "user_id", "item_id", "bought", "spent", "stars", "when"]
    assert [columns[name].dtype.name for name in ("session_id", "user_id")] == ["int64", "str"]
    assert tags(columns["session_id"]) == {"session", "id"}
    assert tags(columns["user_id"]) == {"user", "id"}
    assert tags(columns["bought"]) == {"target", "binary_classification"}
    assert tags(columns["spent"]) == {"target", "regression"}
    assert tags(columns["stars"]) == tags(columns["when"]) == {"target"}
    assert [columns[name].dtype.name for name in stored] == ["int8", "float64", "int8", "unknown"]


@merlin
def test_labels_per_event(tmp_path: Path) -> None:
    stored = {"dwell": "list(float64)", "liked": "list(boolean)", "stars": "list(int16)"}
    columns = read(written(tmp_path, stored=stored, event_labels=tuple(stored)))
    assert tags(columns["dwell"]) == {"target", "regression", "list"}
    assert tags(columns["liked"]) == {"target", "binary_classification", "list"}
    assert tags(columns["stars"]) == {"target", "list"}
    assert "# dwell holds lists of targets" in (tmp_path / "schema.pbtxt").read_text()
    for name, dtype in zip(stored, ("float64", "int8", "int16"), strict=True):
        column = columns[name]
        assert (column.dtype.name, column.is_list, column.is_ragged) == (dtype, True, True)
        assert (column.value_count.min, column.value_count.max) == (1, 20)


@merlin
def test_features_of_one_vocabulary_share_their_domain(tmp_path: Path) -> None:
    columns = read(written(tmp_path, categorical("last", vocabulary=ITEMS.vocabulary, cardinality=1_003)))
    assert columns["last"].int_domain == columns["item_id"].int_domain
    assert "id" not in tags(columns["last"])


@merlin
def test_lists_of_lists_are_left_out(tmp_path: Path) -> None:
    written(tmp_path, categorical("words"), stored={"words": "list(list(int32))"})
    assert list(read(tmp_path)) == ["session_id", "user_id", "item_id"]
    assert "# words is left out" in (tmp_path / "schema.pbtxt").read_text()


@merlin
def test_sessions_of_one_event(tmp_path: Path) -> None:
    items = read(written(tmp_path, max_length=1))["item_id"]
    assert (items.is_list, items.is_ragged) == (True, False)


@pytest.mark.parametrize(("split", "told"), [("day", True), ("leave_one_out", False)])
def test_ids_of_the_last_day(tmp_path: Path, split: str, told: bool) -> None:
    text = (written(tmp_path, split=split) / "schema.pbtxt").read_text()
    assert ("On the last day" in text) == told


@pytest.mark.parametrize(("cardinality", "dimension"), [(4, 16), (1_003, 77), (10**6, 512)])
def test_nvtabulars_embedding_sizes(cardinality: int, dimension: int) -> None:
    assert pbtxt.embedding_dim(cardinality) == dimension


@merlin
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    """Labels are named as columns of the source are."""
    columns = read(written(tmp_path, stored={name: "int8"}, labels=(name,)))
    assert list(columns)[-1] == name
