"""Item vectors as an index of FAISS: one file, with encoded item ids, searched by inner product with `query_vectors`.

    index = faiss.read_index("items.faiss")
    scores_NK, item_index_NK = index.search(query_NE, k)          # -1 where fewer are left

`Flat` searches exactly: the lists are those of `overnight recommend --keep-seen`. Another index (HNSW32, or IVF256,Flat) is
quicker and may miss items; how many is measured on vectors of items.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from modeling.service.retrieval import ITEM_INDEX, VECTOR
from schemas.artifacts import replace_file
from schemas.errors import InputError, reason

if TYPE_CHECKING:
    import numpy.typing as npt

EXACT = "Flat"
ASKED, NEAREST = 1000, 10  # items whose nearest are looked for to measure how many an index finds


def write_index(table: pl.DataFrame, file: Path, kind: str = EXACT) -> float:
    """Write `retrieval.item_vectors` as an index of this `kind` (FAISS's index_factory); the share of the nearest it finds.

    Raises:
        InputError: where FAISS is not installed, and for a kind that is none, or that these items are too few for.
    """
    try:
        import faiss
    except ImportError:
        raise InputError("FAISS is not installed: pip install 'overnight[faiss]'.") from None
    if not table.height:
        raise InputError("No item of this model may be recommended: there is no vector to index.")
    vectors_UE = np.ascontiguousarray(table[VECTOR].to_numpy(), dtype=np.float32)
    ids_U = table[ITEM_INDEX].to_numpy()
    try:
        index = faiss.index_factory(vectors_UE.shape[1], f"IDMap2,{kind}", faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(vectors_UE)
        index.add_with_ids(vectors_UE, ids_U)
    except RuntimeError as error:
        why = reason(error).rpartition("Error: ")[2]
        raise InputError(
            f"--index {kind!r}: FAISS makes no such index of {table.height:,} items ({why}). "
            "Give Flat, which is exact, HNSW32, or IVF256,Flat with more items than 256."
        ) from None
    found = 1.0 if kind == EXACT else _found(index, vectors_UE, ids_U)
    replace_file(file, lambda path: faiss.write_index(index, str(path)))
    return found


def _found(index: Any, vectors_UE: npt.NDArray[np.float32], ids_U: npt.NDArray[np.int64]) -> float:
    """The share of the nearest of some items, searched exactly, that an index gives."""
    asked_NE = vectors_UE[:: max(1, len(vectors_UE) // ASKED)][:ASKED]
    nearest = min(NEAREST, len(vectors_UE))
    exact_NK = ids_U[np.argsort(-(asked_NE @ vectors_UE.T), axis=1, kind="stable")[:, :nearest]]
    _, given_NK = index.search(asked_NE, nearest)
    hits = sum(len(set(exact) & set(given)) for exact, given in zip(exact_NK.tolist(), given_NK.tolist(), strict=True))
    return hits / exact_NK.size
