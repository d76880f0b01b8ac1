"""What can be set about guards: limits beyond which a new model is not put into service by a night, whatever its metric."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from modeling.config.model import Concern


def _limit(default: float | None, title: str, description: str, **bounds: Any) -> Any:
    return Field(default, allow_inf_nan=False, title=title, description=f"{description} Empty: no limit.", **bounds)


class GuardsConfig(Concern):
    """Limits of promotion. A model beyond one of them is held: what is in service stays, and a person decides.

    A limit has a default where values beyond it are a fault whatever the data: half of the sessions, or of the ids, are gone.
    What is usual for coverage, drift, size, latency and age differs between shops and machines, so those are off.
    """

    model_config = ConfigDict(title="Guards")

    sessions: float | None = _limit(
        0.6,
        "Least sessions",
        "Sessions of the test day, as a share of the median of up to 28 days before, or of those of its weekday.",
        gt=0,
        lt=1,
    )
    quarantine: float | None = _limit(
        0.2,
        "Most quarantined",
        "Share of the test day's rows that broke a rule, as events of items without a row.",
        ge=0,
        lt=1,
    )
    items: float | None = _limit(
        0.8, "Least items", "Items of the item table, as a share of the median of up to seven days before.", gt=0, lt=1
    )
    unknown_share: float | None = _limit(
        0.9,
        "Most unknown",
        "Share of the test day's events whose item, or value of a feature that the model reads, is not in its vocabulary.",
        ge=0,
        lt=1,
    )
    drift: float | None = _limit(
        None, "Most drift", "Population stability index of the test day against the days before, of any column.", gt=0
    )
    age_hours: float | None = _limit(
        None,
        "Oldest newest event",
        "Hours from the newest event to the end of the test day; in a scheduled run to the time it was due.",
        gt=0,
    )
    coverage: float | None = _limit(
        None,
        "Least coverage",
        "Share of the catalogue that is in the lists of the test cases, at the largest cut-off.",
        gt=0,
        lt=1,
    )
    size_mb: float | None = _limit(None, "Largest model", "Megabytes of the model's folder.", gt=0)
    latency_ms: float | None = _limit(
        None, "Longest answer", "Milliseconds for the list of one history, on the machine of the night.", gt=0
    )
