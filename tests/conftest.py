"""Small sessions and models that the tests of several rooms share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling.attention import Layout
from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.splits import Cases, Split, hide_last
from schemas import places
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema

SHARED = Path(os.environ.get("OVERNIGHT_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()

gc.disable()  # what is imported and collected stays: to look through it for garbage, over and over, is wasted

# Files that take minutes with few tests. Begun last, they would keep one process busy long after the rest have ended.
FIRST = (
    "faults/test_served.py", "flows/test_serve.py", "test_readme.py", "flows/test_child.py", "flows/test_retrain.py",
    "test_wheel.py", "test_docs.py", "flows/test_tracking.py", "laws/test_models.py", "laws/test_encoders.py",
    "modeling/training/", "faults/", "flows/", "docker/",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; `make test` hands files to its processes in this order."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        return next((rank for rank, first in enumerate(FIRST) if name.startswith(first)), len(FIRST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # tests run side by side
    os.environ["OVERNIGHT_MLFLOW"] = "off"  # but where recording is what is tested


@pytest.fixture(autouse=True)
def no_folders_of_other_tests() -> Iterator[None]:
    """Folders of people's own parts that a test reads a dataset with are searched in that test only."""
    yield
    places.use(())


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """The folder of a real dataset; skips the test where it is absent."""

    def find(name: str) -> Path:
        folder = SHARED / "data" / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there (set OVERNIGHT_SHARED to the folder that holds data/{name})")
        return folder

    return find


def schema_of(num_items: int, max_length: int = 20) -> FeatureSchema:
    """Items, a category and a price."""
    columns = (
        FeatureColumn(
            name=ITEM_ID, kind="categorical", source=ITEM_ID, dtype="int32", cardinality=num_items + FIRST_ID,
            vocabulary="vocabularies/item_id.parquet",
        ),
        FeatureColumn(name="type", kind="categorical", source="type", dtype="int32", cardinality=FIRST_ID + 5),
        FeatureColumn(name="price", kind="continuous", source="price", dtype="float32"),
    )  # fmt: skip
    return FeatureSchema(dataset="test", max_length=max_length, split="day", columns=columns)


def sessions_of(histories: list[list[int]]) -> Sessions:
    """Sessions of item ids, with side features that follow from the items."""
    lengths = torch.tensor([len(history) for history in histories])
    items = torch.tensor([item for history in histories for item in history], dtype=torch.int32)
    return Sessions(
        events={ITEM_ID: items, "type": items % 5 + FIRST_ID, "price": (items % 7).float() / 7},
        starts=lengths.cumsum(0) - lengths,
        lengths=lengths,
        end=torch.arange(len(histories)) * 1_000_000,
    )


def random_sessions(count: int, num_items: int, seed: int = 0, longest: int = 12) -> Sessions:
    """Sessions of items drawn uniformly and independently: nothing can be learned from them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (count,), generator=generator).tolist()
    draw = torch.randint(FIRST_ID, FIRST_ID + num_items, (sum(lengths),), generator=generator)
    return sessions_of([part.tolist() for part in draw.split(lengths)])


def chain_sessions(count: int, num_items: int, seed: int = 0) -> Sessions:
    """Sessions that step through the catalogue by a fixed permutation, from a random start: wholly predictable."""
    generator = torch.Generator().manual_seed(seed)
    following = torch.roll(torch.arange(num_items), 7)
    item = torch.randint(0, num_items, (count,), generator=generator)
    steps = [item]
    for _ in range(5):
        steps.append(following[steps[-1]])
    return sessions_of((torch.stack(steps, 1) + FIRST_ID).tolist())


def asking(target_N: Tensor) -> Batch:
    """A batch that asks for these items at the places of one row, and reads nothing."""
    size = len(target_N)
    layout = Layout(torch.ones(1, size, dtype=torch.long), torch.arange(size)[None])
    nothing = torch.zeros(size, dtype=torch.bool)
    weight_N = torch.full((size,), 1 / size)
    return Batch(layout, {}, nothing[None], torch.arange(size), target_N, weight_N, nothing, {})


def split_of(train: Sessions, test: Sessions) -> Split:
    cases = hide_last(test)
    return Split(train, Cases(cases.history, cases.target), cases, train)


def model_of(
    body: str | dict[str, object], positions: str = "end", num_items: int = 50, **groups: object
) -> SequenceModel:
    """A tiny model; `groups` are those of ModelConfig, such as loss="gbce" or inputs={"aggregation": "concat"}."""
    torch.manual_seed(3)
    body = {"name": body} if isinstance(body, str) else body
    inputs = {"positions": positions} | dict(groups.pop("inputs", {}))  # type: ignore[call-overload]
    config = ModelConfig.model_validate({"body": {"dim": 16} | body, "inputs": inputs} | groups)
    return SequenceModel(config, schema_of(num_items)).eval()
