"""Compare a new model with the one in service, and let it take over: one small file that is replaced in one step."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modeling.config import LOWER_IS_BETTER, EvaluationConfig, PromotionConfig
from modeling.stages import code_of_comparison, evaluate
from schemas.artifacts import Artifacts, Manifest, identify, write_atomically
from schemas.errors import InputError, unknown

KIND = "comparisons"
POPULARITY, MEAN = "popularity", "mean"  # what a first model must beat, in ranking and in a label
Progress = Callable[[str], object]


class Champion(BaseModel):
    """The model in service for one dataset, as its pointer file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(pattern=r"^models/[0-9a-f]{16}$")
    comparison: str = Field(pattern=r"^comparisons/[0-9a-f]{16}$")
    promoted: datetime
    previous: str | None = None


def champion_of(artifacts: Artifacts, dataset: str) -> Champion | None:
    """The model in service, or None before the first promotion.

    Raises:
        InputError: when the pointer cannot be read.
    """
    path = _pointer(artifacts, dataset)
    try:
        return Champion.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is not a champion pointer: {error}. Mend or remove it.") from None


def compare(
    artifacts: Artifacts,
    dataset: str,
    evaluation: Manifest,
    sessions: Manifest,
    promotion: PromotionConfig,
    config: EvaluationConfig,
    progress: Progress = print,
) -> Manifest:
    """Measure the model in service on the candidate's test cases and decide. The facts say what was decided and why.

    With no model in service, or one that does not predict what is compared, the candidate has to beat popularity, or the mean
    of a label. A model in service that learned from the test day, as when a past night is run again, cannot be compared on it
    and stays.

    Raises:
        InputError: for a metric that was not computed, with those that were.
    """
    if promotion.metric not in _metrics(evaluation):
        raise unknown("promotion.metric", promotion.metric, _metrics(evaluation))
    candidate = evaluation.parents[0]
    champion = champion_of(artifacts, dataset)
    if champion and champion.model == candidate and (known := artifacts.find(*champion.comparison.split("/"))):
        progress(f"{candidate} is already in service.")
        return known
    rival = artifacts.find(*champion.model.split("/")) if champion and champion.model != candidate else None
    if champion and champion.model != candidate and rival is None:
        progress(f"Warning: {champion.model}, the model in service, is missing or damaged: it cannot be compared.")
    artifact_id = identify(
        code=code_of_comparison(rival),
        parents=(evaluation.name, rival.name if rival else ""),
        dataset=dataset,
        promotion=promotion.model_dump(),
    )
    if found := artifacts.find(KIND, artifact_id):
        return found
    facts = _decide(artifacts, evaluation, rival, sessions, promotion, config, progress)
    facts |= {"dataset": dataset, "candidate": candidate, "champion": rival.name if rival else None}
    progress(facts["reason"])
    with artifacts.write(KIND, artifact_id, parents=(evaluation.name,), parameters=promotion.model_dump()) as draft:
        draft.facts = facts
        (draft.folder / "comparison.json").write_text(json.dumps(facts, indent=2) + "\n")
    return draft.manifest


def _decide(
    artifacts: Artifacts,
    evaluation: Manifest,
    rival: Manifest | None,
    sessions: Manifest,
    promotion: PromotionConfig,
    config: EvaluationConfig,
    progress: Progress,
) -> dict[str, Any]:
    metric, new, test_day = promotion.metric, _metrics(evaluation)[promotion.metric], sessions.facts["test_day"]
    facts: dict[str, Any] = {"metric": metric, "promote": False, "new": new, "old": None}
    if rival and _learned_from(rival, test_day):
        reason = f"The model in service learned from {test_day}, the test day, and cannot be compared on it: it stays."
        return facts | {"reason": reason}
    if new is None:
        return facts | {"reason": f"{metric} is undefined on these test sessions: keep what is in service."}
    if rival:
        alone = config.model_copy(update={"baselines": ()})
        old = _metrics(evaluate(artifacts, rival, sessions, alone, progress)).get(metric)
        if old is not None:
            return facts | _judge(promotion, new, old, "the model in service")
    baseline = MEAN if "/" in metric else POPULARITY
    reason = "the model in service does not predict it" if rival else "nothing is in service"
    least = evaluation.facts["metrics"].get(baseline, {}).get(metric)
    if least is None:
        return facts | _judge(promotion, new, 0.0, f"nothing ({reason}, {baseline} was not measured)")
    return facts | _judge(promotion, new, least, f"{baseline} ({reason})")


def _judge(promotion: PromotionConfig, new: float, old: float, against: str) -> dict[str, Any]:
    """Whether the gain is the one asked for, in a sentence."""
    lower = promotion.metric.rpartition("/")[2] in LOWER_IS_BETTER
    better = new < old * (1 - promotion.min_gain) if lower else new > max(old * (1 + promotion.min_gain), 0)
    gain = f"{new / old - 1:+.1%}" if old else "from nothing"
    notes = [gain, *(["lower is better"] if lower else [])]
    notes += [f"{promotion.min_gain:.1%} asked for"] if promotion.min_gain else []
    verdict = "promote" if better else "keep what is in service"
    reason = f"{promotion.metric} {new:.4f} against {old:.4f} of {against} ({', '.join(notes)}): {verdict}."
    return {"promote": better, "old": old, "reason": reason}


def _learned_from(model: Manifest, day: str | None) -> bool:
    """Whether a model's training days, all those before its own test day, hold `day`."""
    return bool(day and model.facts["test_day"] and model.facts["test_day"] > day)


def promote(artifacts: Artifacts, comparison: Manifest) -> Champion | None:
    """Put the candidate into service when the comparison says so; returns the model in service afterwards."""
    facts = comparison.facts
    champion = champion_of(artifacts, facts["dataset"])
    if not facts["promote"] or (champion and champion.model == facts["candidate"]):
        return champion
    artifacts.get(facts["candidate"])  # whole and readable, or the pointer stays
    promoted = Champion(
        model=facts["candidate"],
        comparison=comparison.name,
        promoted=datetime.now(UTC),
        previous=champion.model if champion else None,
    )
    write_atomically(_pointer(artifacts, facts["dataset"]), promoted.model_dump_json(indent=2) + "\n")
    return promoted


def _metrics(evaluation: Manifest) -> dict[str, float | None]:
    """What was measured of the model."""
    found: dict[str, float | None] = evaluation.facts["metrics"][evaluation.facts["model"]]
    return found


def _pointer(artifacts: Artifacts, dataset: str) -> Path:
    return artifacts.root / "champions" / f"{dataset}.json"
