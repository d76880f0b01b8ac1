"""A split of prepared sessions by days, by last items or by a list: folds, each with sessions to train on and cases to test.

    day            the last `test_days` days with sessions are the test, those before it train; with `folds`, so are the days
                   before these, and so on, each fold trained on what was before it, or on its last `train_days` days
    leave_one_out  the last item of every session is the test, the one before validates
    list           trains as `day` (histories: on all); the test is a Parquet of histories with targets (`stages.listed`)

A fold of earlier days reads the sessions in the ids of the newest: items that came up later have an id, but no training event,
so that no model reads or recommends them. Numbers keep the scale of all days before the newest test day; where that matters,
prepare the earlier day for itself, as `overnight backtest` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import torch
from torch import Tensor

from modeling.config import SplitConfig
from modeling.sessions import Sessions, read_sessions
from modeling.splits.cases import Cases, hide_last, spread
from schemas.artifacts import Manifest, require_whole
from schemas.columns import DAY, ITEM_ID, USER_ID
from schemas.features import FeatureSchema


@dataclass(frozen=True)
class Split:
    """Training sessions, and the cases that choose (validation) and judge (test) a model."""

    train: Sessions
    validation: Cases
    test: Cases
    last_day: Sessions  # the newest training sessions: what last-day popularity counts
    fold: Fold | None = None  # that it was read by
    users: pl.Series | None = None  # of test cases that are in no session file, [S]

    @property
    def num_validation(self) -> int:
        """Validation cases that can be ranked: few or none where the newest training day is small."""
        return len(self.validation.known().target)


@dataclass(frozen=True)
class Fold:
    """Sessions that train and sessions that test. `config` is the split that has this fold alone.

    Days are those with sessions, in order; none of them where the test is not by days.
    """

    sessions: Manifest
    config: SplitConfig
    train_days: tuple[str, ...] = ()
    test_days: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """2026-03-08, 2026-03-07..2026-03-08, leave_one_out, or the list's file."""
        if self.config.rule == "list":
            return Path(str(self.config.path)).name
        return _range(self.test_days) if self.test_days else "leave_one_out"

    @property
    def test_day(self) -> str | None:
        """The day before which all training sessions are; None where these have no days, or the test lies among them."""
        return self.test_days[0] if self.test_days else None

    @cached_property
    def schema(self) -> FeatureSchema:
        """What the columns of the sessions mean."""
        return FeatureSchema.read(self.sessions.folder / "schema.json")

    def read(self, most_validation: int = 0) -> Split:
        """Train, validation and test. Of a list, `test` has no case: `stages.listed` reads them.

        By days, validation holds up to `most_validation` sessions of the newest training day, evenly spread and held out of
        training (at most a tenth of that day); by last items, the item before the last of evenly spread sessions.

        Items are held out of sessions as they were prepared; nothing is cut before. Preparation keeps the `max_length` latest
        events of a session, so with leave_one_out a long history has the last of these for the test, the one before for
        validation, and `max_length - 2` for training. What a model reads of a longer history is its own to decide: never
        more of it than of those in training.

        Raises:
            InputError: when a file of the sessions is missing or holds other bytes than were written.
        """
        require_whole(self.sessions)
        if not self.test_days:
            split = _split_list if self._listed else _split_histories
            return replace(split(self._read(None), most_validation), fold=self)
        train, newest = self._read(self.train_days), self._read(self.train_days[-1:])
        test = hide_last(self._read(self.test_days))
        first = len(train) - len(newest)  # files are read in order of days
        held_out = first + spread(len(newest), min(most_validation, len(newest) // 10))
        keep = torch.ones(len(train), dtype=torch.bool)
        keep[held_out] = False
        last_day = train.select(keep & (torch.arange(len(train)) >= first))
        test = test.select(torch.arange(0)) if self._listed else test
        return Split(train.select(keep), hide_last(train.select(held_out)), test, last_day, self)

    def files(self, days: tuple[str, ...]) -> list[Path]:
        """The session files of some days, in order; of no days, all files."""
        folders = sorted((self.sessions.folder / "sessions").glob(f"{DAY}=*"))
        wanted = [folder for folder in folders if not days or folder.name.partition("=")[2] in days]
        return [file for folder in wanted for file in sorted(folder.glob("*.parquet"))]

    def about(self) -> dict[str, Any]:
        """What a manifest says of the fold: its rule, and the first and the last day of each side; None where it has no days.

        {"rule": "day", "train": ["2026-02-01", "2026-03-07"], "test": ["2026-03-08", "2026-03-08"]}
        """
        rule = self.config.rule or self.schema.split
        return {"rule": rule, "train": _ends(self.train_days), "test": None if self._listed else _ends(self.test_days)}

    def counts(self) -> dict[str, int | None]:
        """{"train_sessions": 900, "test_sessions": 36, "test_users": 30, "cold_users": 4, "test_items": 25, "cold_items": 2}

        A cold user has no training session, a cold item is a hidden one without a training event. Counted where the test is by
        days; users where sessions have any. None elsewhere.
        """
        train, test = self.files(self.train_days), self.files(self.test_days)
        rows = [sum(pq.read_metadata(file).num_rows for file in files) for files in (train, test)]
        counts: dict[str, int | None] = {"train_sessions": rows[0], "test_sessions": None}
        counts |= dict.fromkeys(("test_users", "cold_users", "test_items", "cold_items"))
        if self._listed or not self.test_days:
            return counts
        counts["test_sessions"] = rows[1]
        if USER_ID in pq.read_schema(test[0]).names:
            counts["test_users"], counts["cold_users"] = _cold(train, test, pl.col(USER_ID), pl.col(USER_ID))
        trained, hidden = pl.col(ITEM_ID).explode(), pl.col(ITEM_ID).list.last()
        counts["test_items"], counts["cold_items"] = _cold(train, test, trained, hidden)
        return counts

    @property
    def _listed(self) -> bool:
        return self.config.rule == "list"

    def _read(self, days: tuple[str, ...] | None) -> Sessions:
        return read_sessions(self.sessions.folder / "sessions", self.schema, lambda day: days is None or day in days)


def folds(sessions: Manifest, config: SplitConfig = SplitConfig()) -> list[Fold]:  # noqa: B008  (frozen)
    """The folds of a split of prepared sessions, the oldest first; the last one is what a night trains and is tested on.

    Of days 1 to 9, `SplitConfig(folds=3)` tests on 7 (trained on 1 to 6), 8 and 9, `SplitConfig(folds=2, test_days=2,
    train_days=3)` on 6 and 7 (trained on 3 to 5) and on 8 and 9 (trained on 5 to 7):

        for fold in folds(sessions, SplitConfig(folds=3)):
            model = train(artifacts, sessions, ModelConfig(), TrainingConfig(), split=fold.config)
            evaluation = evaluate(artifacts, model, sessions, EvaluationConfig(split=fold.config))

    or, without a model, `fold.read()` has `train` and `test`.

    Raises:
        InputError: for a rule that the sessions do not fit, a day that has none, and more folds than there are days for.
    """
    stretches = config.stretches(sessions.facts["days"], sessions.facts["test_day"])
    if not stretches:
        return [Fold(sessions, config)]
    alone = [config.model_copy(update={"folds": 1, "until": date.fromisoformat(days.test[-1])}) for days in stretches]
    if stretches[-1].test[-1] == sessions.facts["test_day"]:
        alone[-1] = config.model_copy(update={"folds": 1, "until": None})
    return [Fold(sessions, own, days.train, days.test) for own, days in zip(alone, stretches, strict=True)]


def split_sessions(
    manifest: Manifest,
    schema: FeatureSchema,
    most_validation: int,
    config: SplitConfig = SplitConfig(),  # noqa: B008  (frozen)
) -> Split:
    """Train, validation and test of the newest fold; `Fold.read` says which these are.

    Raises:
        InputError: as `folds` and `Fold.read` do.
    """
    return folds(manifest, config)[-1].read(most_validation)


def newest_and_replay(manifest: Manifest, split: Split, first_day: str, replay: float, seed: int) -> Tensor:
    """Which training sessions are read by a model that starts from another one, bool of shape [S].

    All of the days from `first_day` on; of those before, a share of `replay`, drawn anew for each test day. Histories that have
    no days are all read.
    """
    read_S = torch.ones(len(split.train), dtype=torch.bool)
    test_day = split.fold.test_day if split.fold else manifest.facts["test_day"]
    if test_day is None:
        return read_S
    days = (path for path in (manifest.folder / "sessions").glob(f"{DAY}=*"))
    newest = [path for path in days if first_day <= path.name.partition("=")[2] < test_day]
    rows = sum(pq.read_metadata(file).num_rows for path in newest for file in path.glob("*.parquet"))
    old = len(split.train) - (rows - len(split.validation.target))  # sessions are in order of days
    generator = torch.Generator().manual_seed(seed * 1_000_003 + date.fromisoformat(test_day).toordinal())
    read_S[:old] = torch.rand(max(old, 0), generator=generator) < replay
    return read_S


def _split_histories(histories: Sessions, most_validation: int) -> Split:
    train = histories.drop_last(2)
    chosen = histories.select(spread(len(histories), most_validation))
    validation = Cases(chosen.drop_last(2), chosen.item_from_end(1))
    return Split(train, validation, hide_last(histories), train)


def _split_list(histories: Sessions, most_validation: int) -> Split:
    """Histories whose test lies elsewhere: the last item validates those that are chosen, and all else trains."""
    chosen = torch.zeros(len(histories), dtype=torch.bool)
    chosen[spread(len(histories), most_validation)] = True
    train = histories.drop_last(1) if most_validation else histories
    nothing = hide_last(histories.select(torch.arange(0)))
    return Split(train, hide_last(histories.select(chosen)), nothing, train)


def _cold(train: list[Path], test: list[Path], trained: pl.Expr, tested: pl.Expr) -> tuple[int, int]:
    """How many values the test has, and how many of these training does not have."""
    values = _scan(test).select(tested.alias("value")).drop_nulls().unique()
    cold = values.join(_scan(train).select(trained.alias("value")).unique(), on="value", how="anti")
    counts = [frame.select(pl.len()).collect(engine="streaming").item() for frame in (values, cold)]
    return counts[0], counts[1]


def _scan(files: list[Path]) -> pl.LazyFrame:
    return pl.scan_parquet(files, glob=False, hive_partitioning=False)


def _ends(days: tuple[str, ...]) -> list[str] | None:
    return [days[0], days[-1]] if days else None


def _range(days: tuple[str, ...]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]}..{days[-1]}"
