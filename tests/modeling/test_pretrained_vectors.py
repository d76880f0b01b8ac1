"""Pretrained vectors of items: how they are read, what a model makes of them, and files that cannot be used."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from modeling.config import TrainingConfig
from modeling.model import SequenceModel
from modeling.training.fit import fit
from modeling.vectors import read_vectors
from schemas.columns import UNKNOWN
from schemas.errors import InputError
from tests.conftest import split_of
from tests.modeling.test_inputs import (
    NUM_ITEMS,
    SIDE,
    config_of,
    items_of,
    schema_of,
    sessions_of,
)
from tests.modeling.test_items import config_for, quiet, write_vectors


@pytest.mark.parametrize("kind", ["lists", "arrays", "text keys", "npy", "memory order"])
def test_vectors_are_read_from_either_kind_of_file(kind: str, tmp_path: Path) -> None:
    rows, raw = write_vectors(tmp_path / "v.parquet"), items_of()["value"]
    config, keys = config_for(tmp_path / "v.parquet"), raw[2:]
    if kind == "arrays":
        pl.DataFrame(
            {"item_id": keys, "vector": rows}, schema_overrides={"vector": pl.Array(pl.Float64, 6)}
        ).write_parquet(config.path)
    elif kind == "text keys":
        raw = raw.cast(pl.String)
        pl.DataFrame({"sku": keys.cast(pl.String), "text": rows.tolist()}).write_parquet(config.path)
        config = config_for(tmp_path / "v.parquet", key="sku", column="text")
    elif kind in ("npy", "memory order"):
        table = np.zeros((int(raw.max()) + 1, 6))
        table[keys.to_numpy()] = rows
        raw = pl.concat([pl.Series("value", [-1, 10**6]), raw[2:]])
        np.save(tmp_path / "v.npy", np.asfortranarray(table) if kind == "memory order" else table)
        config = config_for(tmp_path / "v.npy")
    vectors, there = read_vectors(config, raw)
    torch.testing.assert_close(vectors, torch.from_numpy(rows).float())
    assert there.tolist() == [False, False] + [True] * (NUM_ITEMS - 2)


def test_vectors_are_normalised_projected_and_added(tmp_path: Path) -> None:
    rows = write_vectors(tmp_path / "v.parquet")
    lines: list[str] = []
    for about in ({}, {"normalised": False}, {"replaces_id": True}):
        config = config_of({"pretrained": {"path": str(tmp_path / "v.parquet")} | about})
        items = SequenceModel(config, schema_of()).eval().inputs.items
        items.set_items(items_of(), lines.append)
        row = torch.from_numpy(rows).float()[5]
        row = row if "normalised" in about else row / row.norm()
        own = 0 if "replaces_id" in about else items.table_VE[10]
        torch.testing.assert_close(items.of(torch.tensor(10)), own + items.pretrained.project.weight @ row)
        for without in (3, 4, UNKNOWN):
            assert torch.equal(items.of(torch.tensor(without)), items.table_VE[without])
    assert lines == ["Pretrained vectors of width 6 for 28 of 30 items; 2 have none and get zeros."] * 3


@pytest.mark.parametrize("trained", [False, True])
def test_frozen_vectors_stay_as_they_are(trained: bool, tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.parquet")
    inputs = {"pretrained": {"path": str(tmp_path / "v.parquet"), "trained": trained}}
    sessions, settings = sessions_of(60), TrainingConfig(epochs=1, tokens_per_step=64, evaluations=1, threads=1)
    split = split_of(sessions, sessions)
    model, _ = fit(schema_of(*SIDE), split, config_of(inputs), settings, tmp_path / "run", quiet, items_of())
    before = SequenceModel(config_of(inputs), schema_of(*SIDE))
    before.inputs.items.set_items(items_of(), quiet)
    same = torch.equal(before.inputs.items.pretrained.vectors_VP, model.inputs.items.pretrained.vectors_VP)
    assert same is not trained
    again, _ = fit(schema_of(*SIDE), split, config_of(inputs), settings, tmp_path / "again", quiet, items_of())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


KEYS = items_of()["value"]
ONES: list[object] = np.ones((NUM_ITEMS, 3)).tolist()
TABLES: dict[str, dict[str, object]] = {
    "key": {"sku": KEYS, "vector": ONES},
    "column": {"item_id": KEYS, "embedding": ONES},
    "widths": {"item_id": KEYS, "vector": [*ONES[1:], [1.0]]},
    "empty": {"item_id": KEYS, "vector": pl.Series([[]] * NUM_ITEMS, dtype=pl.List(pl.Float32))},
    "numbers": {"item_id": KEYS, "vector": KEYS},
    "infinite": {"item_id": KEYS, "vector": [*ONES[1:], [1.0, float("inf"), 2.0]]},
    "null inside": {"item_id": KEYS, "vector": [*ONES[1:], [1.0, None, 2.0]]},
    "too large": {"item_id": KEYS, "vector": [*ONES[1:], [1.0, 1e300, 2.0]]},
    "twice": {"item_id": [30, *KEYS[:-1]], "vector": ONES},
    "strangers": {"item_id": KEYS + 1, "vector": ONES},
    "text keys": {"item_id": [f"i{key}" for key in KEYS], "vector": ONES},
}
ARRAYS = {"npy objects": np.array([[None]]), "npy flat": np.ones(9), "npy cut": np.ones((400, 3))}


def unusable(kind: str, folder: Path) -> Path:
    """A file of item vectors that cannot be used."""
    if kind in ARRAYS:
        file = folder / "v.npy"
        np.save(file, ARRAYS[kind])
    else:
        file = folder / "v.parquet"
        pl.DataFrame(TABLES.get(kind, TABLES["strangers"]), strict=False).write_parquet(file)
    if kind == "pickle":
        (folder / "v.npy").write_bytes(pickle.dumps(np.ones((400, 3))))
    elif kind == "npz":
        np.savez(folder / "v.npz", np.ones((400, 3)))
        (folder / "v.npz").rename(folder / "v.npy")
    elif kind in ("damaged", "npy cut"):
        file.write_bytes(file.read_bytes()[:-100])
    return folder / {"missing": "none.parquet", "suffix": "v.pt", "pickle": "v.npy", "npz": "v.npy"}.get(
        kind, file.name
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("key", r"v\.parquet in inputs\.pretrained\.key 'item_id'.*Known: sku, vector"),
        ("column", r"inputs\.pretrained\.column 'vector'.*Known: embedding, item_id"),
        ("widths", r"v\.parquet: all vectors must be of one width, got 1, 3"),
        ("empty", r"one width, got 0"),
        ("numbers", r"'vector' must hold lists of numbers, got Int64"),
        ("infinite", r"vectors of 1 items hold numbers that are not finite"),
        ("null inside", r"vectors of 1 items hold numbers that are not finite"),
        ("too large", r"vectors of 1 items hold numbers that are not finite"),
        ("twice", r"item 30 is there more than once"),
        ("strangers", r"no vector for any of the 30 items \(ids such as 30, 40, 50\)"),
        ("text keys", r"'item_id' holds String, item ids are Int64, such as 30"),
        ("damaged", r"v\.parquet is not a readable Parquet file"),
        ("missing", r"there is no file .*none\.parquet"),
        ("suffix", r"v\.pt': expected a file of \.parquet or \.npy"),
        ("npy objects", r"v\.npy is not a \.npy file of numbers: .*Python objects"),
        ("npy flat", r"expected a table of numbers, got shape \(9,\) of float64"),
        ("npy cut", r"v\.npy is not a \.npy file of numbers"),
        ("pickle", r"v\.npy is not a \.npy file of numbers"),
        ("npz", r"v\.npy is not a \.npy file of numbers"),
    ],
)
def test_files_that_cannot_be_used_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    config = config_for(unusable(kind, tmp_path))
    with pytest.raises(InputError, match=message):
        read_vectors(config, items_of()["value"])


def test_rows_of_a_npy_need_whole_numbers_as_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((400, 3)))
    with pytest.raises(InputError, match=r"item ids are String here, such as '30'. Give a \.parquet"):
        read_vectors(config_for(tmp_path / "v.npy"), items_of()["value"].cast(pl.String))
