"""GET /users and GET /similar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling.service.api.app import Service
from modeling.service.api.lists import read_lists
from modeling.service.rules import Rules
from schemas.errors import InputError
from tests.modeling.service.conftest import Shop, serving


def written(folder: Path, rows: list[tuple[Any, int, str, float | None]], **further: list[str]) -> Path:
    folder.mkdir()
    table = pl.DataFrame(rows, schema=["user_id", "rank", "item", "score"], orient="row").with_columns(
        **{name: pl.Series(values) for name, values in further.items()}
    )
    table.write_parquet(folder / "lists.parquet")
    return folder


@pytest.mark.parametrize("users", [["a", "b", "Ω/ü"], [7, -3, 2**60]])
def test_a_users_list_is_the_one_that_was_made(
    acts: Shop, service_of: Callable[..., Service], tmp_path: Path, users: list[Any]
) -> None:
    rows = [(user, rank, f"i{rank:02d}", 1.0 / rank) for rank in (2, 1, 3) for user in users]
    folder = written(tmp_path / "lists", rows, source=["model", "category", "hour"] * 3)
    service = service_of(find_lists=lambda: folder)
    service.lists.refresh()
    with serving(service) as client:
        for user in users:
            found = client.get(f"/users/{str(user).replace('/', '%2F')}").json()
            assert found["known"] and [entry["item"] for entry in found["items"]] == ["i01", "i02", "i03"]
            assert found["items"][0]["score"] == 1.0 and found["items"][0]["source"] in ("model", "category", "hour")
        assert len(client.get(f"/users/{users[0]}?k=2").json()["items"]) == 2
        for nobody in ("nobody", "99", "0", "-1e5", "a" * 500):
            found = client.get(f"/users/{nobody}").json()
            assert not found["known"] and {entry["source"] for entry in found["items"]} == {"popular"}
            assert len(found["items"]) == 10
        for k in ("0", "ten", "1001", "²"):
            assert client.get(f"/users/{users[0]}?k={k}").status_code == 422


def test_newer_lists_are_taken_and_damaged_ones_are_not(
    acts: Shop, service_of: Callable[..., Service], tmp_path: Path
) -> None:
    folders = [written(tmp_path / "one", [("a", 1, "i01", 1.0)])]
    service = service_of(find_lists=lambda: folders[-1])
    assert service.lists.refresh() and not service.lists.refresh()
    with serving(service) as client:
        assert [entry["item"] for entry in client.get("/users/a").json()["items"]] == ["i01"]
        folders.append(tmp_path / "nowhere")
        with pytest.raises(InputError, match="nowhere"):
            service.lists.refresh()
        assert client.get("/users/a").json()["known"]
        folders.append(written(tmp_path / "two", [("a", 1, "i02", 1.0)]))
        assert service.lists.refresh()
        assert [entry["item"] for entry in client.get("/users/a").json()["items"]] == ["i02"]
    (tmp_path / "three").mkdir()
    pl.DataFrame({"user_id": ["a"]}).write_parquet(tmp_path / "three/lists.parquet")
    with pytest.raises(InputError, match="there is no rank"):
        read_lists(tmp_path / "three")


def test_lists_of_the_night_keep_the_rules_of_now(
    acts: Shop, service_of: Callable[..., Service], tmp_path: Path
) -> None:
    folder = written(
        tmp_path / "lists", [("a", rank, f"i{rank:02d}", None) for rank in range(1, 5)] + [("a", 5, "ghost", None)]
    )
    table = pl.DataFrame({"item": ["i01", "i03", "ghost"], "eligible": [False, True, True]})
    for rules, wanted in (
        (Rules(table), ["i02", "i03", "i04", "ghost"]),
        (Rules(table, unlisted=False), ["i03", "ghost"]),
        (Rules(table.head(2), unlisted=False), ["i03"]),
    ):
        given = [rules]
        service = service_of(find_lists=lambda: folder, read_rules=lambda: given.pop() if given else None)  # noqa: B023
        service.lists.refresh()
        with serving(service) as client:
            assert [entry["item"] for entry in client.get("/users/a").json()["items"]] == wanted


def test_similar_items_are_those_of_the_recommender(acts: Shop, service_of: Callable[..., Service]) -> None:
    wanted = acts.recommender().similar(["i03"], 4)[0]
    with serving(service_of()) as client:
        found = client.get("/similar/i03?k=4").json()
        assert [(entry["item"], pytest.approx(entry["cosine"])) for entry in found["similar"]] == wanted
        assert found["model"] == acts.models[0].name
        near = client.get("/similar/i3")
        assert near.status_code == 404 and "Near: " in near.json()["error"]
    rules = [Rules(pl.DataFrame({"item": [wanted[0][0]], "eligible": [False]}))]
    with serving(service_of(read_rules=lambda: rules.pop() if rules else None)) as client:
        found = client.get("/similar/i03?k=3").json()
        assert [entry["item"] for entry in found["similar"]] == [item for item, _ in wanted[1:]]
