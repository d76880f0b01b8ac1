"""`overnight recommend` for users: with their past sessions before the current one, and for everyone from the past alone."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.flows.conftest import QUICK, overnight_here, summary_of


@pytest.fixture(scope="module")
def root(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads past sessions, and one that does not."""
    folder = tmp_path_factory.mktemp("users")
    small = ["--set=body.dim=16", "--set=training.epochs=1", "--set=evaluation.baselines=[]"]
    for past in (0, 10):
        given = ["--source", shop, "--root", folder, *QUICK, *small, f"--set=inputs.past_events={past}"]
        (folder / f"{past}").write_text(summary_of(overnight_here("train", *given, "--json"))["artifact"])
    return folder


def asking(root: Path, past: int = 10) -> list[str]:
    return ["--root", str(root), "--model", (root / str(past)).read_text()]


def prepared(root: Path) -> pl.DataFrame:
    (folder,) = (root / "sessions").iterdir()
    return pl.read_parquet(folder / "sessions" / "*" / "*.parquet")


def test_a_user_is_asked_about_with_and_without_a_session(root: Path) -> None:
    sessions = prepared(root).group_by("user_id").agg(pl.col("length").sum()).sort("length", descending=True)
    user, item = sessions["user_id"][0], pl.read_parquet(next((root / "sessions").glob("*/items.parquet")))["value"][0]
    alone = summary_of(overnight_here("recommend", "--user", user, *asking(root), "--json"))
    assert len(alone["recommended"]) == 10 and alone["past_events"] == 10 and alone["borrowed"] == []
    session = summary_of(overnight_here("recommend", item, "--user", user, *asking(root), "--json"))
    nobody = summary_of(overnight_here("recommend", item, "--user", "nobody", *asking(root), "--json"))
    plain = summary_of(overnight_here("recommend", item, *asking(root), "--json"))
    assert nobody["past_events"] == 0 and nobody["recommended"] == plain["recommended"]
    assert session["recommended"] != plain["recommended"] and "past_events" not in plain


def test_the_past_of_a_user_ends_when_it_is_asked(root: Path) -> None:
    sessions = prepared(root).sort("end")
    user, item = sessions["user_id"][-1], pl.read_parquet(next((root / "sessions").glob("*/items.parquet")))["value"][0]
    first, last = (sessions.filter(user_id=user)["end"].sort()[place] for place in (0, -1))
    asked = {
        moment: summary_of(overnight_here("recommend", item, "--user", user, "--at", moment, *asking(root), "--json"))
        for moment in ("2001-01-01", first.isoformat(), f"{last:%Y-%m-%d}T23:59:59+00:00")
    }
    before, _, after = (answer["past_events"] for answer in asked.values())
    assert before == 0 < after


def test_everyone_gets_a_list(root: Path, tmp_path: Path) -> None:
    """Each list is that of the user asked about alone."""
    done = summary_of(overnight_here("recommend", "--everyone", "--out", tmp_path / "lists", *asking(root), "--json"))
    lists = pl.read_parquet(tmp_path / "lists" / "lists.parquet").sort("user_id", "rank")
    users = prepared(root)["user_id"].unique().sort()
    assert lists["user_id"].unique().sort().equals(users) and done["histories"] == len(users)
    for user in users[:3]:
        one = summary_of(overnight_here("recommend", "--user", user, *asking(root), "--json"))
        assert lists.filter(pl.col("user_id") == user)["item"].to_list() == one["recommended"]
    seen = prepared(root).explode("item_id").select("user_id", "item_id").group_by("user_id").tail(10)
    items = pl.read_parquet(next((root / "sessions").glob("*/items.parquet"))).select(item_id="id", item="value")
    hidden = summary_of(
        overnight_here("recommend", "--everyone", "--hide-seen", "--out", tmp_path / "new", *asking(root), "--json")
    )
    assert not hidden["keep_seen"]
    shown = pl.read_parquet(tmp_path / "new" / "lists.parquet")
    assert shown.join(seen.join(items, on="item_id"), on=["user_id", "item"]).is_empty()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--user", "nobody"], ["'nobody' has no session in"]),
        (["--user", "u000001", "--events", "a.csv"], ["--user u000001: that is for the items of one session"]),
        (["--user", "u000001", "--at", "tomorrow"], ["--at 'tomorrow': give a time such as 2026-03-08T09:00"]),
        (["lamp-0001", "--at", "2026-03-08"], ["item ids alone", "Give --user or --events"]),
        (["--everyone"], ["(or --everyone) and --out FOLDER go together"]),
        (["--everyone", "--out", "x", "lamp-0001"], ["one of them"]),
    ],
)
def test_options_that_do_not_go_together(root: Path, arguments: list[str], says: list[str]) -> None:
    done = overnight_here("recommend", *arguments, *asking(root))
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(part in done.stderr for part in says), done.stderr


@pytest.mark.parametrize("arguments", [["--user", "u000001"]])
def test_a_model_that_reads_no_past_says_so(root: Path, arguments: list[str]) -> None:
    done = overnight_here("recommend", *arguments, *asking(root, past=0))
    assert done.returncode == 2 and "reads no past sessions (inputs.past_events is 0)" in done.stderr, done.stderr
