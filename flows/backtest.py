"""Day by day: what each way of training gives when every day is predicted by what was there before it.

    scratch   every day a model is trained from the beginning
    warm      every day's model starts from that of the day before
    frozen    the first day's model stays

All begin with the first day's model from scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

from flows.console import in_lines
from flows.folds import Fold, OnProgress, nights_of
from flows.measuring import Does, Kind, Stage, measure_all, record, require_ranks
from flows.night_lock import alone, may_go_on
from flows.reports.day_by_day import PICTURE, files_of
from flows.reports.templates import HERE
from flows.settings.settings import Settings
from schemas.artifacts import Manifest
from schemas.errors import InputError, MisfitError, unknown

POLICIES = ("scratch", "warm", "frozen")
BACKTESTS = "backtests"
Say = Callable[[str], object]


@dataclass(frozen=True)
class Policy:
    """A way to get a day's model: one of `POLICIES`."""

    name: str

    @property
    def trains(self) -> bool:
        """Whether each day's model is trained on its sessions."""
        return self.name != "frozen"

    def model_for(
        self, fold: Fold, before: Manifest | None, train: Stage, progress: OnProgress
    ) -> tuple[Manifest, float]:
        """The model of a day, and the CPU seconds that training it took."""
        if self.name == "frozen" and before:
            return before, 0.0
        start = before.name if self.name == "warm" and before else None
        try:
            model = train(_starting(fold.settings, start), fold.sessions, progress)
        except MisfitError as error:  # settings that follow the shape of the data may change from one day to the next
            progress(f"From scratch: {error}")
            model = train(_starting(fold.settings, None), fold.sessions, progress)
        return model, float(model.facts["cpu_seconds"])


def _starting(settings: Settings, start: str | None) -> Settings:
    return replace(settings, training=settings.training.model_copy(update={"start_from": start}))


def backtest_alone(
    settings: Settings,
    first: date,
    last: date,
    policies: str,
    window: int | None,
    say: Say,
    wait: Say,
    run: str = "",
    does: Does = lambda stage: stage,
) -> Manifest:
    """`backtest` by policies with commas between, while nobody else writes below the root; stopped, it may go on.

    `wait` is said who has the root; `run` is the flow run that this is.
    """
    names = tuple(name.strip() for name in policies.split(",") if name.strip())
    about = {"dataset": settings.dataset.name, "from": first, "to": last, "policy": names, "window": window}
    with alone(settings, "backtest", wait, run), may_go_on(settings.artifacts, about):
        return backtest(settings, first, last, names, window, say, does)


def backtest(
    settings: Settings,
    first: date,
    last: date,
    policies: tuple[str, ...],
    window: int | None,
    say: Say = print,
    does: Does = lambda stage: stage,
) -> Manifest:
    """Train and measure by each policy on each day -> `backtests/<id>`: result.json, table.md and days.svg.

    `window` is the number of days before each day that are used (None: all). Baselines, which are the same for all policies,
    and lists are left out. Facts: those of `measuring.record`, the days as folds, and `skipped`, days without test sessions.

    Raises:
        InputError: for days in the wrong order, unknown policies, a split that has no days, a model that ranks no items, or no
            day that can be measured.
    """
    for policy in policies:
        if policy not in POLICIES:
            raise unknown("--policy", policy, POLICIES)
    if not policies or len(set(policies)) < len(policies):
        raise InputError(
            f"--policy {','.join(policies)!r}: name each of {', '.join(POLICIES)} once at most, and one at least."
        )
    require_ranks(settings.preset or settings.model.body.name, settings)
    evaluation = settings.evaluation.model_copy(update={"baselines": (), "lists": 0})
    progress = in_lines(say)
    nights, skipped = nights_of(replace(settings, evaluation=evaluation), first, last, window, progress)
    if settings.training.start_from:
        say(
            f"Not used in a backtest: training.start_from {settings.training.start_from}; --policy says what starts from what."
        )
    contenders = [Policy(name) for name in policies]
    measured = measure_all(contenders, nights, progress, does)
    kind = Kind(BACKTESTS, files_of, (HERE / f"{PICTURE}.j2",))
    return record(settings, kind, contenders, nights, measured, skipped=skipped)
