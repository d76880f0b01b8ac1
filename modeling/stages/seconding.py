"""A verdict by metrics, seconded by what people do: `promotion.clicks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modeling.config import PromotionConfig
from modeling.evaluation.pointer import Champion
from schemas.artifacts import Artifacts
from schemas.errors import InputError

if TYPE_CHECKING:
    from schemas.serving import SideBySide


def clicks_tonight(
    artifacts: Artifacts,
    dataset: str,
    champion: Champion | None,
    side_by_side: SideBySide | None,
    promotion: PromotionConfig,
) -> dict[str, Any] | None:
    """What clicks say of the second model; None where they are not asked, or there is none."""
    if not promotion.clicks or champion is None or side_by_side is None:
        return None
    from modeling.stages.by_clicks import clicks_of, stays

    try:
        clicks = clicks_of(artifacts, dataset, champion.model, side_by_side, promotion)
    except InputError as error:
        return stays(champion.model, side_by_side.model, f"Clicks cannot be counted: {error}")
    out = champion.taken_out(side_by_side.model)
    if clicks and clicks["verdict"] == "promote" and (out or champion.hold):
        by_hand = f"was taken out of service on {out.when:%Y-%m-%d at %H:%M} UTC" if out else "waits"
        why = f"But it {by_hand}: to put it into service, `overnight promote {side_by_side.model} --dataset {dataset}`."
        clicks |= {
            "verdict": "hold",
            "says": f"{clicks['says']} {said_of_hold(champion, dataset) if champion.hold else why}",
        }
    return clicks


def seconded(facts: dict[str, Any], clicks: dict[str, Any] | None, promotion: PromotionConfig) -> dict[str, Any]:
    """The verdict where clicks decide what takes over from a model in service that can be compared; empty where they do not."""
    if not promotion.clicks or facts["champion"] is None:
        return {}
    reason, candidate = facts["reason"], facts["candidate"]
    second = clicks["challenger"] if clicks else None
    if clicks and second == candidate and facts["verdict"] == "keep":
        clicks = clicks | {
            "verdict": "keep",
            "says": f"{clicks['says']} But its metric says to keep what is in service.",
        }
    changed: dict[str, Any] = {"clicks": clicks}
    guarded = any(row["holds"] for row in facts["guards"])
    if facts["verdict"] in ("promote", "hold") and not facts["not_compared"] and not guarded:
        changed |= {"promote": False, "verdict": "hold"}
        if second != candidate:
            instead = f", in place of {second}" if second else ""
            reason += (
                f" Clicks decide (promotion.clicks). To show it to people: serving.side_by_side.model: {candidate}{instead}; "
                f"or `overnight promote {candidate} --dataset {facts['dataset']}`."
            )
    return changed | {"reason": f"{reason} {clicks['says']}" if clicks else reason}


def said_of_hold(champion: Champion | None, dataset: str) -> str:
    """That a person holds what is in service, and how to end that."""
    assert champion
    return (
        f"But {champion.model} is {champion.hold}: it stays in service. To end that: "
        f"`overnight promote --release --dataset {dataset}`."
    )
