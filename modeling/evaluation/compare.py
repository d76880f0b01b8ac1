"""Which of two models is better, and the model in service: one small file a dataset, replaced in one step.

The rule. Against a model in service, a metric of ranks is judged by what each test case says, see `evidence`. A metric of
labels, which are predicted and not ranked, is compared as it is: it must be better, by `promotion.min_gain` at least. Where
nothing is in service, or what is there cannot be compared or does not predict the metric, the new model must beat the best of
all baselines that were measured instead (of a label, `mean`), in the same way. A model that was taken out of service by hand
comes back by hand only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modeling.config import LOWER_IS_BETTER, PromotionConfig
from schemas.artifacts import Artifacts, write_atomically
from schemas.errors import InputError

MODEL = r"^models/[0-9a-f]{16}$"
COMPARISON = r"^comparisons/[0-9a-f]{16}$"
Metrics = Mapping[str, float | None]  # by name; None where undefined


class Change(BaseModel):
    """One model put into service in place of another."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(pattern=MODEL)
    replaced: str | None = None
    by: Literal["comparison", "promote", "rollback"] = "comparison"
    comparison: str | None = Field(None, pattern=COMPARISON)
    when: datetime
    because: str = ""


class Champion(BaseModel):
    """The model in service for one dataset, as its pointer file says. `previous` is what a rollback puts back."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(pattern=MODEL)
    comparison: str | None = Field(None, pattern=COMPARISON)
    promoted: datetime
    previous: str | None = Field(None, pattern=MODEL)
    history: tuple[Change, ...] = Field((), description="All changes, the newest last.")

    def applied(self, comparison: str) -> bool:
        """Whether this comparison put a model into service once."""
        return comparison in (self.comparison, *(change.comparison for change in self.history))

    def taken_out(self, model: str) -> Change | None:
        """The rollback that took a model out of service, unless it was put back since."""
        for change in reversed(self.history):
            if change.model == model:
                return None
            if change.replaced == model and change.by == "rollback":
                return change
        return None

    def before(self, model: str) -> str | None:
        """What a model replaced when it was last put into service, but for rollbacks."""
        changes = [change for change in self.history if change.model == model and change.by != "rollback"]
        return changes[-1].replaced if changes else None


def champion_of(artifacts: Artifacts, dataset: str) -> Champion | None:
    """The model in service; None before the first promotion, and where a person set `model` to null: nothing is in service.

    Raises:
        InputError: when the pointer cannot be read.
    """
    path = pointer_of(artifacts, dataset)
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.get("model", "") is None:
            return None
        return Champion.model_validate(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()
        ) if isinstance(error, ValidationError) else str(error)  # fmt: skip
        raise InputError(
            f"{path} is not a champion pointer ({reason}). Mend it, or name the model to be in service: "
            f"`overnight promote MODEL --dataset {dataset}`."
        ) from None


def names_in_service(artifacts: Artifacts) -> list[str]:
    """The datasets for which a model is in service; not those whose pointer is emptied or damaged."""
    names = sorted(path.stem for path in (artifacts.root / "champions").glob("*.json"))
    return [name for name in names if _names_a_model(artifacts, name)]


def _names_a_model(artifacts: Artifacts, dataset: str) -> bool:
    try:
        return champion_of(artifacts, dataset) is not None
    except InputError:
        return False


def pointer_of(artifacts: Artifacts, dataset: str) -> Path:
    """The pointer file of a dataset."""
    return artifacts.root / "champions" / f"{dataset}.json"


def put_in_service(
    artifacts: Artifacts,
    dataset: str,
    model: str,
    *,
    by: Literal["comparison", "promote", "rollback"],
    comparison: str | None = None,
    because: str = "",
) -> Champion:
    """Point to another model, in one step. A pointer that cannot be read is kept as NAME.json.damaged."""
    path = pointer_of(artifacts, dataset)
    try:
        now = champion_of(artifacts, dataset)
    except InputError:
        now = None
        os.replace(path, path.with_name(f"{path.name}.damaged"))  # noqa: PTH105
    replaced = now.model if now else None
    when = datetime.now(UTC)
    change = Change(model=model, replaced=replaced, by=by, comparison=comparison, when=when, because=because)
    champion = Champion(
        model=model,
        comparison=comparison,
        promoted=when,
        previous=now.before(model) if now and by == "rollback" else replaced,
        history=(*_history(now), change),
    )
    write_atomically(path, champion.model_dump_json(indent=2) + "\n")
    return champion


def why_withdrawn(
    artifacts: Artifacts, dataset: str, champion: Champion | None, candidate: str, comparison: str
) -> str:
    """Why a candidate that was in service before does not come back by this comparison; empty where it may."""
    stays, path = (champion.model if champion else "nothing"), pointer_of(artifacts, dataset)
    if stays == candidate:
        return ""
    out = champion.taken_out(candidate) if champion else None
    if out:
        because = f" ({out.because})" if out.because else ""
        how = f"was taken out of service on {out.when:%Y-%m-%d at %H:%M} UTC{because}"
    elif champion.applied(comparison) if champion else _named_in_emptied(artifacts, dataset, comparison):
        how = f"was put into service by this comparison before, and {path} was changed since"
    else:
        return ""
    return f"{candidate} {how}: {stays} stays in service. To put it back: `overnight promote {candidate} --dataset {dataset}`."


def _named_in_emptied(artifacts: Artifacts, dataset: str, comparison: str) -> bool:
    """Whether a pointer whose `model` a person set to null says that this comparison was applied."""
    try:
        text = pointer_of(artifacts, dataset).read_text()
    except (OSError, ValueError):
        return False
    return comparison in text


def _history(now: Champion | None) -> tuple[Change, ...]:
    """The changes so far; of a pointer that was written without them, the one it stands for."""
    if now is None or now.history:
        return now.history if now else ()
    return (Change(model=now.model, replaced=now.previous, comparison=now.comparison, when=now.promoted),)


@dataclass(frozen=True)
class Rival:
    """What a new model must beat: its score, and who that is in words."""

    score: float
    name: str
    note: str = ""
    """What else to know, such as the best baseline where the model in service is the rival."""


def best_baseline(metrics: Mapping[str, Metrics], model: str, metric: str) -> tuple[str, float] | None:
    """The best baseline of an evaluation, and its score; None where none was measured.

    {"sasrec": {"ndcg@20": 0.1}, "popularity": {"ndcg@20": 0.09}, "markov": {"ndcg@20": 0.17}} -> ("markov", 0.17)
    """
    scores = {name: values.get(metric) for name, values in metrics.items() if name != model}
    defined = [(name, score) for name, score in scores.items() if score is not None]
    if not defined:
        return None
    best = min if lower_is_better(metric) else max
    return best(defined, key=lambda pair: pair[1])


def instead(baseline: tuple[str, float] | None, why: str) -> Rival:
    """The rival where there is no model to compare with: the best baseline, or a score of nothing."""
    if baseline is None:
        return Rival(0.0, f"nothing ({why}, no baseline was measured)")
    name, score = baseline
    return Rival(score, f"{name}{'' if name == 'mean' else ', the best baseline'} ({why})")


def judge(promotion: PromotionConfig, new: float, rival: Rival) -> dict[str, Any]:
    """Whether the gain is the one asked for: `promote`, `old` and `reason`, a sentence."""
    old, lower, least = rival.score, lower_is_better(promotion.metric), promotion.min_gain or 0.0
    better = new < old * (1 - least) if lower else new > max(old * (1 + least), 0)
    gain = f"{new / old - 1:+.1%}" if old else "from nothing"
    notes = [gain, *(["lower is better"] if lower else [])]
    notes += [f"{least:.1%} asked for"] if least else []
    notes += [rival.note] if rival.note else []
    verdict = "promote" if better else "keep what is in service"
    reason = f"{promotion.metric} {new:.4f} against {old:.4f} of {rival.name} ({', '.join(notes)}): {verdict}."
    return {"promote": better, "verdict": "promote" if better else "keep", "old": old, "reason": reason}


def lower_is_better(metric: str) -> bool:
    """Whether a metric is an error: LABEL/rmse and its like."""
    return metric.rpartition("/")[2] in LOWER_IS_BETTER
