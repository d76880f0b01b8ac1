"""Item vectors in a real Milvus Lite: the lists are those of exact search, and the alias follows the model in service."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from modeling.service.milvus import alias_of, connected, publish, search
from modeling.service.recommender import Recommender
from schemas.errors import InputError
from tests.modeling.service.test_export import model_of
from tests.modeling.test_inputs import TAGS, TYPE, sessions_of
from tests.modeling.test_items import write_folder


def recommender_of(folder: Path, scale: float = 1.0) -> Recommender:
    """With a bias an item, an item that nobody clicked, and the item features type and tags."""
    folder.mkdir()
    model = model_of("sasrec", TYPE, TAGS, reached=True, heads={"next_item": {"bias": True}})
    model.next_item.popularity_V[4] = 0
    with torch.no_grad():
        model.next_item.bias_V *= scale
    return Recommender(write_folder(model, folder), "cpu")


def test_milvus_gives_the_lists_of_exact_search(tmp_path: Path) -> None:
    first, second = recommender_of(tmp_path / "a"), recommender_of(tmp_path / "b", scale=-5.0)
    sessions = sessions_of(20, seed=2)
    with connected(str(tmp_path / "items.db")) as client:
        done = publish(client, first, "aa11")
        assert done.written and done.items == 29 and done.alias == alias_of("test")
        for filter_seen in (False, True):
            wanted = first.recommend(sessions, 5, filter_seen=filter_seen)
            assert search(client, first, sessions, 5, filter_seen=filter_seen) == wanted
        lamps = search(client, first, sessions, 5, where='type == "type4" and array_contains(tags, "tags4")')
        of_type = set(first.items.filter(pl.col("type") == 4, pl.col("tags").list.contains(4))["value"])
        assert all(items and set(items) <= of_type for items in lamps)

        assert publish(client, second, "bb22").written
        assert search(client, second, sessions, 5) == second.recommend(sessions, 5) != first.recommend(sessions, 5)
        back = publish(client, first, "aa11")
        assert not back.written, "a rollback moves the alias only"
        assert search(client, first, sessions, 5) == first.recommend(sessions, 5)
        client.delete("overnight_test_bb22", ids=[3])
        assert publish(client, second, "bb22").written, "what is not complete is written again"
        publish(client, first, "cc33")
        assert sorted(client.list_collections()) == ["overnight_test_bb22", "overnight_test_cc33"]


def test_a_server_that_is_away_is_said_without_its_password() -> None:
    with (
        pytest.raises(InputError, match=r"Milvus at http://127.0.0.1:9/? does not answer") as raised,
        connected("http://me:secret@127.0.0.1:9"),
    ):
        pass
    assert "secret" not in str(raised.value)
