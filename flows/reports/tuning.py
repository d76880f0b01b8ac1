"""Trials of a search as people read them: a table, best first, and what was chosen as YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flows.reports.tables import markdown_table
from schemas.options import in_yaml

DEFAULT = "default"
STATES = {"COMPLETE": "trained", "PRUNED": "cut short", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class Trial:
    """One trial: what it began at, what it changed there, and what came of it.

    `score` is the validation metric, or with its sign turned where less is better; `value` is the metric as it is. `seconds`
    are those of this attempt, `before` those of the attempts that it goes on with.
    """

    number: int
    state: str
    preset: str = DEFAULT
    changes: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    metric: str = ""
    value: float | None = None
    cases: int = 0
    on: str = ""  # the newest of the days that were held out whole, if any
    seconds: float = 0.0
    before: float = 0.0
    start: str = ""  # the preset that it tries as it is
    continues: int | None = None
    error: str = ""
    ignored: bool = False  # settings that were tried before, or that never began

    @classmethod
    def of(cls, trial: Any) -> Trial:
        """Of a trial of Optuna."""
        about = dict(trial.user_attrs)
        about.pop("traceback", None)
        state = trial.state.name
        ignored = about.pop("ignored", False) or (state != "WAITING" and "changes" not in about)
        score = trial.value if state == "COMPLETE" else None
        fields = {name: value for name, value in about.items() if name in cls.__dataclass_fields__}
        return cls(
            number=trial.number, state=state, params=dict(trial.params), score=score, ignored=ignored, **fields
        )  # fmt: skip

    @property
    def stopped(self) -> bool:
        """Whether it was begun and neither ended nor failed, as when the budget is spent."""
        return self.state in ("FAIL", "RUNNING") and not self.error and not self.ignored

    @property
    def done(self) -> bool:
        """Whether it need not be tried again."""
        return self.state in ("COMPLETE", "PRUNED", "FAIL") and not self.ignored and not self.stopped

    @property
    def is_default(self) -> bool:
        """Whether it tries the settings as they are given."""
        return self.preset == DEFAULT and not self.changes

    @property
    def what(self) -> str:
        """Its settings in one line: `gru4rec, body.dim 200`."""
        return ", ".join([self.preset, *(f"{key} {in_yaml(value)}" for key, value in self.changes.items())])

    @property
    def outcome(self) -> str:
        """What became of it, in words."""
        return "stopped" if self.stopped else STATES[self.state]


def best_of(trials: list[Trial]) -> Trial | None:
    """The trained one with the best validation; of equals the first."""
    trained = [trial for trial in trials if trial.score is not None]
    return max(trained, key=lambda trial: (trial.score, -trial.number), default=None)


def default_of(trials: list[Trial]) -> Trial | None:
    """The trial of the settings as they were given, once it is trained."""
    return next((trial for trial in trials if trial.is_default and trial.score is not None), None)


def seconds_spent(trials: list[Trial]) -> float:
    """Seconds of all trials together."""
    return sum(trial.seconds for trial in trials)


def line_of(trial: Trial, best: Trial | None) -> str:
    """What became of a trial, in one line."""
    words = f"Trial {trial.number}: {trial.outcome} after {trial.seconds + trial.before:.1f} s"
    if trial.value is not None:
        words += f", {trial.metric} {trial.value:.4f}"
    if trial.error:
        words += f": {trial.error}"
    if best and best.value is not None:
        words += f" (best: {best.value:.4f}, trial {best.number})" if best.number != trial.number else " (best so far)"
    return words


def title_of(trials: list[Trial]) -> str:
    """By what trials are compared."""
    best = best_of(trials)
    return f"Trials by {best.metric} {_on(best)}" if best else "Trials"


def _on(trial: Trial) -> str:
    return f"on {trial.cases:,} validation cases" + (f" of {trial.on}, held out whole" if trial.on else "")


def comment_of(trials: list[Trial], budget: str) -> list[str]:
    """What is to be said of chosen settings where they are written, in lines."""
    best, default = best_of(trials), default_of(trials)
    assert best
    before = f", {default.value:.4f} before" if default else ""
    return [
        f"Chosen by `overnight tune --budget {budget}`, best of {len(in_order(trials))} trials ({best.what}):",
        f"{best.metric} {best.value:.4f} {_on(best)}{before}.",
    ]


def in_order(trials: list[Trial]) -> list[Trial]:
    """Trials that are worth a row: the trained ones, best first, then those cut short, stopped and failed."""
    continued = {trial.continues for trial in trials}
    rows = [
        trial for trial in trials if not trial.ignored and trial.number not in continued and trial.state != "WAITING"
    ]
    places = ["trained", "cut short", "stopped", "failed"]
    return sorted(rows, key=lambda trial: (places.index(trial.outcome), -(trial.score or 0.0), trial.number))


def cells_of(trial: Trial, default: Trial | None) -> dict[str, str]:
    """What a table says of a trial, by column."""
    change = ""
    if trial.value is not None and trial.score is not None and default and not trial.is_default:
        change = f"{trial.value - (default.value or 0.0):+.4f}"
    return {
        "validation": "-" if trial.value is None else f"{trial.value:.4f}",
        "change": change,
        "seconds": f"{trial.seconds + trial.before:.1f}",
        "": trial.outcome,
        "settings": trial.what + (f" ({trial.error})" if trial.error else ""),
    }


def table_of(trials: list[Trial]) -> str:
    """All trials as a table in Markdown, best first."""
    default = default_of(trials)
    rows = [(str(trial.number), cells_of(trial, default)) for trial in in_order(trials)]
    return "\n".join(markdown_table("trial", rows)[1:]) + "\n"


def summary_of(trials: list[Trial]) -> str:
    """What came of a search, in a sentence or two."""
    best, default = best_of(trials), default_of(trials)
    if best is None:
        return "No trial was trained to its end: give a larger --budget, which goes on with what was begun."
    tried = f"{len(in_order(trials))} trial{'s' * (len(in_order(trials)) != 1)}"
    of = f"{best.metric} {best.value:.4f} {_on(best)}"
    if best.is_default:
        return f"The settings as they are given are the best of {tried}: {of}."
    against = f" against {default.value:.4f} of the settings as they are given" if default else ""
    return (
        f"Best of {tried}: {best.what}; {of}{against}. The best of many on few cases owes something to "
        "chance: `overnight compare` measures both on test days."
    )
