"""A split of prepared sessions by days, by last items or by a list: folds, each with sessions to train on and cases to test.

    day            the last `test_days` days with sessions are the test, those before it train; with `folds`, so are the days
                   before these, and so on, each fold trained on what was before it, or on its last `train_days` days
    leave_one_out  the last item of every session is the test, the one before validates
    list           trains as `day` (histories: on all items but the last); the test is a Parquet of histories with targets
                   (`stages.listed`)

A fold of earlier days reads the sessions in the ids of the newest: items that came up later have an id, but no training event,
so that no model reads or recommends them. Numbers keep the scale of all days before the newest test day; where that matters,
prepare the earlier day for itself, as `overnight backtest` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

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
    validates: Literal["chooses", "watches", "nothing"] = "chooses"  # it chooses only if it comes after all training
    fold: Fold | None = None  # that it was read by
    users: pl.Series | None = None  # of test cases that are in no session file, [S]

    @property
    def num_validation(self) -> int:
        """Validation cases that can be ranked: few or none where the newest training day is small."""
        return len(self.validation.known().target)


@dataclass(frozen=True)
class Fold:
    """Sessions that train and sessions that test. `config` is the split that has this fold alone.

    Days are those with sessions, in order; none of them where the test is not by days. The past of training sessions holds no
    session that validation holds out, nor what came before it; by last items, none of the items that are held out of sessions.
    """

    sessions: Manifest
    config: SplitConfig
    train_days: tuple[str, ...] = ()
    test_days: tuple[str, ...] = ()
    past: int = 0  # events of a user's past sessions that a session has at most

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
            InputError: when a file of the sessions is missing or holds other bytes than were written; with `past`, for whole
                histories, users or times that are missing.
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
        chosen = train.select(held_out)
        return Split(train.select(keep).without(chosen), hide_last(chosen), test, last_day, "watches", self)

    def before(self, days: int) -> Fold | None:
        """The fold whose test is the last `days` training days of this one: what chooses, and never this one's test.

        None where none would be left to train on, or days are none.
        """
        if len(self.train_days) <= days:
            return None
        config = SplitConfig(
            rule=None if self._listed else self.config.rule,
            test_days=days,
            train_days=self.config.train_days,
            until=date.fromisoformat(self.train_days[-1]),
        )
        return replace(self, config=config, train_days=self.train_days[:-days], test_days=self.train_days[-days:])

    def read_chooser(self, days: int, most_validation: int) -> Split | None:
        """Training sessions without the last `days` training days, which validate, evenly spread `most_validation` of them.

        There is no test in it. None as for `before`.
        """
        inner = self.before(days)
        if inner is None:
            return None
        split = inner.read()
        chosen = spread(len(split.test.target), most_validation)
        nothing = split.test.select(torch.arange(0))
        return replace(split, validation=split.test.select(chosen), test=nothing, validates="chooses")

    def read_whole(self, days: int, most_validation: int) -> Split:
        """All training sessions, and the test; what validates are some of the training sessions, the last `days` days'.

        No run may be watched by them. Baselines choose their settings by them, on what was before.
        """
        split, newest = self.read(), self._read(self.train_days[-days:])
        cases = hide_last(newest.select(spread(len(newest), most_validation)))
        return replace(split, validation=cases, validates="nothing")

    def read_all(self) -> Split:
        """All sessions, those of the test among them, whole: nothing validates and nothing is tested."""
        require_whole(self.sessions)
        train = self._read((*self.train_days, *self.test_days) or None)
        newest = self._read(self.test_days[-1:]) if self.test_days else train
        nothing = hide_last(train.select(torch.arange(0)))
        return Split(train, nothing, nothing, newest, "nothing", self)

    @property
    def next_day(self) -> str | None:
        """The day after the last test day; None as for `test_day`."""
        return str(date.fromisoformat(self.test_days[-1]) + timedelta(days=1)) if self.test_days else None

    def files(self, days: tuple[str, ...]) -> list[Path]:
        """The session files of some days, in order; of no days, all files."""
        folders = sorted((self.sessions.folder / "sessions").glob(f"{DAY}=*"))
        wanted = [folder for folder in folders if not days or folder.name.partition("=")[2] in days]
        return [file for folder in wanted for file in sorted(folder.glob("*.parquet"))]

    def rows_before(self, day: str) -> int:
        """How many training sessions are of days before this one: their positions are the first, in order of days."""
        before = tuple(other for other in self.train_days if other < day)
        return sum(pq.read_metadata(file).num_rows for file in self.files(before)) if before else 0

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
        folder = self.sessions.folder / "sessions"
        return read_sessions(folder, self.schema, lambda day: days is None or day in days, self.past)


def folds(sessions: Manifest, config: SplitConfig = SplitConfig(), past: int = 0) -> list[Fold]:  # noqa: B008  (frozen)
    """The folds of a split of prepared sessions, the oldest first; the last one is what a night trains and is tested on.

    Of days 1 to 9, `SplitConfig(folds=3)` tests on 7 (trained on 1 to 6), 8 and 9, `SplitConfig(folds=2, test_days=2,
    train_days=3)` on 6 and 7 (trained on 3 to 5) and on 8 and 9 (trained on 5 to 7):

        for fold in folds(sessions, SplitConfig(folds=3)):
            model = train(artifacts, sessions, ModelConfig(), TrainingConfig(), split=fold.config)
            evaluation = evaluate(artifacts, model, sessions, EvaluationConfig(split=fold.config))

    or, without a model, `fold.read()` has `train` and `test`. `past` is `inputs.past_events` of the model that reads them.

    Raises:
        InputError: for a rule that the sessions do not fit, a day that has none, and more folds than there are days for.
    """
    stretches = config.stretches(sessions.facts["days"], sessions.facts["test_day"])
    if not stretches:
        return [Fold(sessions, config, past=past)]
    alone = [config.model_copy(update={"folds": 1, "until": date.fromisoformat(days.test[-1])}) for days in stretches]
    if stretches[-1].test[-1] == sessions.facts["test_day"]:
        alone[-1] = config.model_copy(update={"folds": 1, "until": None})
    return [Fold(sessions, own, days.train, days.test, past) for own, days in zip(alone, stretches, strict=True)]


def split_sessions(
    manifest: Manifest,
    schema: FeatureSchema,
    most_validation: int,
    config: SplitConfig = SplitConfig(),  # noqa: B008  (frozen)
    past: int = 0,
) -> Split:
    """Train, validation and test of the newest fold; `Fold.read` says which these are.

    Raises:
        InputError: as `folds` and `Fold.read` do.
    """
    return folds(manifest, config, past)[-1].read(most_validation)


def replay_then_newest(
    split: Split, first_day: str, replay: float, seed: int, recent_days: int | None = None
) -> Tensor:
    """The training sessions that a model reads that starts from another one, as positions in the order of reading.

    First a share of `replay` of all sessions, drawn anew for each test day, in random order; then all of the days from
    `first_day` on, in order of time. So the newest sessions are read last, and those that are drawn twice. Histories that
    have no days are all read once. With `recent_days`, sessions before the newest so many days of training are not drawn.

    Days 1 to 4 with a session each, from day 3 on with a replay of .5: [1, 2, 2, 3], say.
    """
    fold, count = split.fold, len(split.train)
    if fold is None or fold.test_day is None:
        return torch.arange(count)
    old = fold.rows_before(first_day)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + date.fromisoformat(fold.test_day).toordinal())
    again = (torch.rand(count, generator=generator) < replay).nonzero().squeeze(1)
    if recent_days:
        again = again[again >= fold.rows_before(fold.train_days[-recent_days:][0])]
    mixed = again[torch.randperm(len(again), generator=generator)]
    return torch.cat([mixed, torch.arange(old, count)])  # sessions are in order of days


def _split_histories(histories: Sessions, most_validation: int) -> Split:
    train = histories.forgetting(2).drop_last(2)  # a later session of its user reads no item that is hidden of one
    chosen = histories.forgetting(1).select(spread(len(histories), most_validation))
    validation = Cases(chosen.drop_last(2), chosen.item_from_end(1))
    return Split(train, validation, hide_last(histories), train)


def _split_list(histories: Sessions, most_validation: int) -> Split:
    """Histories whose test lies elsewhere: all items but the last train, and the last of some, evenly spread, validates.

    Without validation all items train.
    """
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
