"""Item vectors as an index of FAISS: the lists are those of exact search."""

from __future__ import annotations

from pathlib import Path

import faiss
import polars as pl
import pytest
from typer.testing import CliRunner

from flows.cli import app
from modeling.service.faiss_index import write_index
from modeling.service.retrieval import ITEM, ITEM_INDEX, item_vectors, query_vectors
from schemas.errors import InputError
from tests.modeling.service.test_milvus import recommender_of
from tests.modeling.test_inputs import sessions_of


def test_the_lists_are_those_of_exact_search(tmp_path: Path) -> None:
    """Of a model with a bias an item and an item that nobody clicked."""
    recommender = recommender_of(tmp_path / "a")
    table, sessions = item_vectors(recommender), sessions_of(20, seed=2)
    assert write_index(table, tmp_path / "items.faiss") == 1.0
    index = faiss.read_index(str(tmp_path / "items.faiss"))
    assert index.ntotal == table.height == 29
    names = dict(table.select(ITEM_INDEX, ITEM).iter_rows())
    scores_NK, ids_NK = index.search(query_vectors(recommender, sessions).detach().numpy(), 7)
    assert [[names[item] for item in row] for row in ids_NK.tolist()] == recommender.recommend(sessions, 7)
    wanted_NK = recommender.ranked(sessions, 7)[1].detach().numpy()
    assert scores_NK == pytest.approx(wanted_NK, abs=1e-4)


@pytest.mark.parametrize("kind", ["HNSW16", "IVF2,Flat"])
def test_other_kinds_say_how_many_they_find(kind: str, tmp_path: Path) -> None:
    found = write_index(item_vectors(recommender_of(tmp_path / "a")), tmp_path / "items.faiss", kind)
    assert 0 < found <= 1 and faiss.read_index(str(tmp_path / "items.faiss")).ntotal == 29


@pytest.mark.parametrize("kind", ["Flatt", "IVF256,Flat", ""])
def test_a_kind_that_is_none_or_too_large_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"FAISS makes no such index of 29 items .*Give Flat"):
        write_index(item_vectors(recommender_of(tmp_path / "a")), tmp_path / "items.faiss", kind)
    assert not (tmp_path / "items.faiss").exists()
    with pytest.raises(InputError, match="there is no vector to index"):
        write_index(item_vectors(recommender_of(tmp_path / "b")).clear(), tmp_path / "items.faiss")


def test_the_command_writes_it(tmp_path: Path) -> None:
    recommender = recommender_of(tmp_path / "a")
    file, asked = tmp_path / "items.faiss", ["vectors", "--model", str(recommender.folder), "--root", str(tmp_path)]
    done = CliRunner().invoke(app, [*asked, "--faiss", str(file), "--out", str(tmp_path / "items.parquet")])
    assert done.exit_code == 0 and f"29 items in {file}: Flat, exact." in done.output, done.output
    assert pl.read_parquet(tmp_path / "items.parquet")[ITEM_INDEX].len() == faiss.read_index(str(file)).ntotal
    refusals = {
        "Say where to": [],
        "give --faiss FILE with it": ["--index", "HNSW16"],
        "is there already": ["--faiss", str(file)],
    }
    for said, words in refusals.items():
        refused = CliRunner().invoke(app, [*asked, *words])
        assert isinstance(refused.exception, InputError) and said in str(refused.exception)
