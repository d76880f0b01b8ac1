"""Metrics of a new model + sessions -> verdict against the model in service; verdict -> model in service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from modeling.config import METRICS, EvaluationConfig, PromotionConfig
from modeling.evaluation.compare import KEEP, KEEP_NOTHING, Metrics, Rival, best_baseline, instead, judge
from modeling.evaluation.pointer import (
    Champion,
    champion_of,
    changing,
    pointer_of,
    put_in_service,
    why_withdrawn,
)
from modeling.stages.guarding import guard, is_older, why_held
from modeling.stages.identity import code_of_comparison
from modeling.stages.learned import saw_later
from modeling.stages.rival import measure_in_service
from modeling.stages.seconding import clicks_tonight, said_of_hold, seconded
from schemas.artifacts import Artifacts, Manifest, identify
from schemas.errors import InputError, unknown

if TYPE_CHECKING:
    from modeling.service.rules import Rules
    from schemas.serving import SideBySide

COMPARISONS = "comparisons"
METRIC_OF_RANKS = re.compile(rf"({'|'.join(METRICS)})@\d+$")
Progress = Callable[[str], object]


def compare(
    artifacts: Artifacts,
    dataset: str,
    evaluation: Manifest,
    sessions: Manifest,
    promotion: PromotionConfig,
    config: EvaluationConfig,
    progress: Progress = print,
    due: datetime | None = None,
    side_by_side: SideBySide | None = None,
) -> Manifest:
    """Measure the model in service on the candidate's test cases and decide, by the rule of `evaluation.compare`.

    The model in service never fails a night: one that cannot be compared (its folder or its pointer is damaged, this code does
    not take it, a feature it reads is made another way now, measuring it fails) is named with the reason, and the candidate is
    judged as with nothing in service. A model in service that was trained on the test day, as when a past night is run again,
    stays. What would be promoted is held where a guard of `promotion.guards` says so; `due` is when a schedule asked for this
    night (None: a person did). Facts: `promote`, `verdict` (promote, keep, or hold: these cases cannot tell, or a guard holds;
    both leave the pointer), `reason`, `metric`, `new`, `old`, `champion`, `compared` (whether it was measured), `not_compared`
    (why not), `read_as` (what it could not read from today's sessions), `guards` (see `guarding.guard`), and where ranks were
    compared those of `weighing.weigh`.

    With `promotion.clicks` what would take the place of a model in service is held, and what people clicked says whether the
    second model of `side_by_side` does: the fact `clicks`, see `by_clicks`; `promote` then puts that one into service.

    Raises:
        InputError: for a metric that was not computed, with those that were.
    """
    measured = _metrics(evaluation)
    if promotion.metric not in measured:
        raise unknown("promotion.metric", promotion.metric, measured)
    candidate = evaluation.parents[0]
    champion, damage = _in_service(artifacts, dataset)
    rival = artifacts.find(*champion.model.split("/")) if champion else None
    put_there_by = champion.comparison if champion and candidate in (champion.model, refit_of(rival)) else None
    if champion and put_there_by and (existing := artifacts.find(*put_there_by.split("/"))):
        progress(f"{candidate} is already in service{'' if champion.model == candidate else f' as {champion.model}'}.")
        return existing
    about = {"dataset": dataset, "promotion": promotion.model_dump(), "damage": damage, "whole": rival is not None}
    code, parents = code_of_comparison(rival), (evaluation.name, champion.model if champion else "")
    artifact_id = identify(code=code, parents=parents, **about)
    withdrawn = why_withdrawn(artifacts, dataset, champion, candidate, f"{COMPARISONS}/{artifact_id}")
    held = str(champion.hold) if champion and champion.hold and champion.model != candidate else ""
    if withdrawn or held:
        artifact_id = identify(code=code, parents=parents, withdrawn=withdrawn, held=held, **about)
    clicks = clicks_tonight(artifacts, dataset, champion, side_by_side, promotion)
    more: dict[str, Any] = {"clicks": clicks} if clicks else {}
    more |= {"older": True} if is_older(promotion.guards, sessions, due) else {}
    if more:
        artifact_id = identify(code="", parents=(f"{COMPARISONS}/{artifact_id}",), **more)
    if existing := artifacts.find(COMPARISONS, artifact_id):
        progress(existing.facts["reason"])
        return existing
    facts: dict[str, Any] = {"metric": promotion.metric, "new": measured[promotion.metric], "old": None}
    facts |= {"promote": False, "verdict": "keep", "compared": False, "not_compared": "", "read_as": [], "guards": []}
    facts |= {"dataset": dataset, "candidate": candidate, "champion": champion.model if champion else None}
    if withdrawn:
        facts["reason"] = withdrawn
    elif champion and champion.model == candidate:
        facts["reason"] = f"{candidate} is in service already."
    else:
        facts |= _decide(artifacts, facts, champion, rival, damage, evaluation, sessions, promotion, config, progress)
        facts |= _guarded(artifacts, facts, evaluation, sessions, promotion, due)
    facts |= seconded(facts, clicks, promotion)
    if held and facts["promote"]:
        facts |= {"promote": False, "verdict": "hold", "reason": f"{facts['reason']} {said_of_hold(champion, dataset)}"}
    progress(facts["reason"])
    return _record(artifacts, artifact_id, evaluation, promotion, facts)


def _guarded(
    artifacts: Artifacts,
    facts: dict[str, Any],
    evaluation: Manifest,
    sessions: Manifest,
    promotion: PromotionConfig,
    due: datetime | None,
) -> dict[str, Any]:
    """The fact `guards`; where one holds what would be promoted, also the verdict and its reason."""
    candidate, first = artifacts.get(facts["candidate"]), facts["champion"] is None or bool(facts["not_compared"])
    rows = guard(
        promotion.guards, candidate, evaluation, sessions, first=first, due=due, timed=facts["promote"]
    )  # an answer's time is taken where it matters
    why = why_held(rows, facts["candidate"], facts["dataset"], alone=facts["promote"])
    if not why:
        return {"guards": rows}
    held = {"promote": False, "verdict": "hold"} if facts["promote"] else {}
    return {"guards": rows, "reason": f"{facts['reason']} {why}"} | held


def promote(
    artifacts: Artifacts, comparison: Manifest, progress: Progress = print, refitted: Manifest | None = None
) -> Champion | None:
    """Put the candidate, or its refit, into service when the comparison says so; returns the model in service afterwards.

    Where it says that clicks promote the second model, that one. A comparison is applied once, and only to the pointer it was
    made against.
    """
    facts = comparison.facts
    dataset, candidate = facts["dataset"], refitted.name if refitted else facts["candidate"]
    clicks = facts.get("clicks") or {}
    by_clicks = clicks.get("verdict") == "promote"
    candidate = clicks["challenger"] if by_clicks else candidate
    champion, _ = _in_service(artifacts, dataset)  # `compare` has said what is wrong with the pointer
    if not (facts["promote"] or by_clicks) or (champion and champion.model == candidate):
        return champion
    artifacts.begin_work()
    with changing(artifacts, f"promotion for {dataset}", progress):
        return _apply(artifacts, comparison, candidate, progress)


def _apply(artifacts: Artifacts, comparison: Manifest, candidate: str, progress: Progress) -> Champion | None:
    dataset = comparison.facts["dataset"]
    champion, _ = _in_service(artifacts, dataset)  # it may have been changed by hand while the lock was waited for
    if champion and (champion.model != comparison.facts["champion"] or champion.applied(comparison.name)):
        progress(
            f"{comparison.name} is not applied: the model in service has changed since it was made. {champion.model} stays. "
            f"Run the night again, or name a model: `overnight promote MODEL --dataset {dataset}`."
        )
        return champion
    if champion and champion.hold:
        progress(said_of_hold(champion, dataset))
        return champion
    artifacts.get(candidate)  # whole and readable, or the pointer stays
    if candidate == (comparison.facts.get("clicks") or {}).get("challenger"):
        because = comparison.facts["clicks"]["says"]
        return put_in_service(artifacts, dataset, candidate, by="clicks", because=because)
    return put_in_service(artifacts, dataset, candidate, by="comparison", comparison=comparison.name)


def _record(
    artifacts: Artifacts, artifact_id: str, evaluation: Manifest, promotion: PromotionConfig, facts: dict[str, Any]
) -> Manifest:
    with artifacts.write(
        COMPARISONS, artifact_id, parents=(evaluation.name,), parameters=promotion.model_dump()
    ) as draft:
        draft.facts = facts
        (draft.folder / "comparison.json").write_text(json.dumps(facts, indent=2) + "\n")
    return draft.manifest


def _in_service(artifacts: Artifacts, dataset: str) -> tuple[Champion | None, str]:
    """The model in service, and what is wrong with the pointer (or "")."""
    try:
        return champion_of(artifacts, dataset), ""
    except InputError as error:
        return None, str(error)


def _decide(
    artifacts: Artifacts,
    facts: dict[str, Any],
    champion: Champion | None,
    rival: Manifest | None,
    damage: str,
    evaluation: Manifest,
    sessions: Manifest,
    promotion: PromotionConfig,
    config: EvaluationConfig,
    progress: Progress,
) -> dict[str, Any]:
    """The facts that say what was decided and why."""
    metric, new, tested = promotion.metric, facts["new"], evaluation.facts["split"]["test"]
    test_day = tested[0] if tested else None
    if rival and _learned_from(rival, sessions, test_day):
        what = f"{test_day}, the test day," if test_day else "histories that go on after these,"
        reason = f"The model in service learned from {what} and cannot be compared on {'it' if test_day else 'them'}: it stays."
        return {"reason": reason}
    if new is None:
        stays = KEEP if champion or damage else KEEP_NOTHING
        return {"reason": f"{metric} is undefined on these test sessions: {stays}."}
    baseline = best_baseline(evaluation.facts["metrics"], evaluation.facts["model"], metric)
    if champion is None and not damage:
        return judge(promotion, new, instead(baseline, "nothing is in service", in_service=False))
    old, problem, where = None, damage, "What is in service"
    read_as: list[str] = []
    measured: Manifest | None = None
    if champion:
        measured, read_as, problem = measure_in_service(
            artifacts, champion, rival, sessions, config, progress, _rules_of(evaluation)
        )
        old = _metrics(measured).get(metric) if measured else None
        where = f"{champion.model}, in service by {pointer_of(artifacts, facts['dataset'])},"
    if problem:
        line = (
            f"{where} cannot be compared: {problem.rstrip('.')}. The new model is judged as with nothing in service, against "
            f"the baselines; to decide otherwise: `overnight promote MODEL --dataset {facts['dataset']}`."
        )
        verdict = judge(promotion, new, instead(baseline, "the model in service cannot be compared"))
        return verdict | {"not_compared": line, "reason": f"{verdict['reason']} {line}"}
    if old is None or measured is None:
        return judge(promotion, new, instead(baseline, "the model in service does not predict it"))
    notes = [f"best baseline: {baseline[0]} {baseline[1]:.4f}"] if baseline else []
    notes += [f"of the model in service {line}" for line in read_as]
    compared = {"compared": True, "read_as": read_as}
    if METRIC_OF_RANKS.match(metric):
        from modeling.stages.weighing import weigh  # torch is only loaded when there is something to compare

        return weigh(evaluation, measured, promotion, baseline, new, old, notes) | compared
    return judge(promotion, new, Rival(old, "the model in service", "; ".join(notes))) | compared


def refit_of(model: Manifest | None) -> str | None:
    """The evaluated model that this one is the refit of."""
    return model.facts.get("refit_of") if model else None


def _learned_from(model: Manifest, sessions: Manifest, day: str | None) -> bool:
    """Whether the training days of a model, all before its own test day, hold `day`; of histories, whether its go on longer."""
    until = model.facts.get("test_day")
    if day or until:
        return bool(day and until and until > day)
    return bool(saw_later(model, sessions))


def _rules_of(evaluation: Manifest) -> Rules | None:
    """The rules of the candidate's evaluation; torch is only loaded where there are some."""
    if not evaluation.facts.get("rules"):
        return None
    from modeling.stages.under_rules import rules_kept

    return rules_kept(evaluation)


def _metrics(evaluation: Manifest) -> Metrics:
    """What was measured of the model."""
    measured: Metrics = evaluation.facts["metrics"][evaluation.facts["model"]]
    return measured
