"""Item vectors of the model in service, after each night: `vectors/<id>`, and where asked for Milvus, whose alias follows.

<root>/vectors/1f2e/items.parquet      item, item_index, vector: `modeling.service.retrieval.item_vectors`
<root>/lists/shop.vectors.json         which of them is the newest, and where it was sent
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from flows.lists import POINTERS
from schemas.artifacts import Artifacts, Manifest, identify, write_atomically
from schemas.closure import code_of
from schemas.errors import InputError
from schemas.progress import Progress

if TYPE_CHECKING:
    from modeling.service.recommender import Recommender
    from schemas.dataset import Dataset

KIND, ITEMS = "vectors", "items.parquet"
ROOT = Path(__file__).parents[1]
OnProgress = Callable[[Progress | str], object]


class Newest(BaseModel):
    """The newest vectors of a dataset, of which model they are, and the name of the Milvus that holds them, or empty."""

    model_config = ConfigDict(frozen=True)

    vectors: str
    model: str
    milvus: str = ""


def newest_vectors(artifacts: Artifacts, dataset: str) -> Newest | None:
    """What the pointer says; None where there is none that can be read."""
    try:
        return Newest.model_validate_json(_pointer(artifacts, dataset).read_text())
    except (OSError, ValueError):
        return None


def make_vectors(artifacts: Artifacts, dataset: Dataset, progress: OnProgress) -> Manifest:
    """The model in service -> `vectors/<id>`, the newest from then on, and into the Milvus of `serving.vectors`.

    Raises:
        InputError: when no model is in service, and for a Milvus that is not there.
    """
    from flows.in_service import model_folder

    wanted = dataset.serving.vectors
    assert wanted is not None
    folder = model_folder(artifacts, dataset.name)
    model = f"models/{folder.name}"
    vectors_id = identify(code=code_of(ROOT, ("modeling.service.retrieval",)), parents=(model,))
    made = artifacts.find(KIND, vectors_id)
    newest = Newest(vectors=f"{KIND}/{vectors_id}", model=model, milvus=wanted.milvus or "")
    if made and newest_vectors(artifacts, dataset.name) == newest:
        return made
    artifacts.begin_work()
    from modeling.service.recommender import Recommender

    recommender = Recommender(folder)
    made = made or _make(artifacts, vectors_id, model, recommender)
    if wanted.milvus:
        from flows.connections import url_of
        from modeling.service.milvus import connected, publish

        with connected(url_of(wanted.milvus)) as client:
            published = publish(client, recommender, folder.name, progress)
        progress(
            f"Milvus {wanted.milvus}: {published.alias} points to {published.collection}, {published.items:,} items."
        )
    write_atomically(_pointer(artifacts, dataset.name), newest.model_dump_json(indent=2) + "\n")
    return made.model_copy(update={"reused": False})


def after_change(artifacts: Artifacts, dataset: str, say: Callable[[str], object]) -> None:
    """The same after a change by hand, where the dataset asks for it; a Milvus that is away is said, and changes nothing."""
    from schemas.dataset import load_dataset

    try:
        loaded = load_dataset(dataset)
    except InputError:
        return  # described elsewhere: its next night does it
    if loaded.serving.vectors is None:
        return
    try:
        make_vectors(artifacts, loaded, lambda report: say(str(report)))
    except InputError as error:
        say(f"Vectors are still of the model before: {error} The next night sends them.")


def _make(artifacts: Artifacts, vectors_id: str, model: str, recommender: Recommender) -> Manifest:
    from modeling.service.retrieval import item_vectors

    table = item_vectors(recommender)
    with artifacts.write(KIND, vectors_id, parents=(model,)) as draft:
        table.write_parquet(draft.folder / ITEMS)
        draft.facts = {"items": table.height}
    return draft.manifest


def _pointer(artifacts: Artifacts, dataset: str) -> Path:
    return artifacts.root / POINTERS / f"{dataset}.vectors.json"
