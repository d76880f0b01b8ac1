"""Guards of promotion: each holds a model that would take over without it."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling.config import EvaluationConfig, GuardsConfig, ModelConfig, PromotionConfig
from modeling.evaluation.pointer import champion_of
from modeling.stages import compare, evaluate, promote, train
from modeling.stages.guarding import guard, share_of_usual
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import InputError
from tests.cases.test_model_in_service import ANY, CONFIG, TRAINING, Shop, quiet, write_events
from tests.preprocessing.small import at, dataset_of, run, write

JUDGED = CONFIG.model_copy(update={"lists": 1})
OFF = dict.fromkeys(GuardsConfig.model_fields)


class Odd(Shop):
    """A shop whose sixth day is odd: it ends at 9:14, some rows lack an item, and one user looks at new items."""

    def prepare(self, features: str, until: int, **events: Any) -> Manifest:
        import tests.cases.test_model_in_service as cases

        def odd(folder: Path, days: int, **more: Any) -> None:
            write_events(folder, days, **more)
            table = pl.read_parquet(folder / "events.parquet")
            is_odd, minute = pl.col("timestamp").dt.date() == date(2026, 3, 6), pl.col("timestamp").dt.minute()
            kept = table.filter(~is_odd | (minute <= 14))
            lost = is_odd & ((pl.col("user_id") == "u5-3") | ((minute % 3 == 0) & (pl.col("user_id") == "u5-0")))
            item = pl.when(~lost).then(
                pl.when(is_odd & (pl.col("user_id") == "u5-7")).then(pl.lit("new")).otherwise("item_id")
            )
            kept.with_columns(item.alias("item_id")).write_parquet(folder / "events.parquet")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cases, "write_events", odd)
            return super().prepare(features, until, **events)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Odd, Manifest, Manifest]:
    """A model in service, and a candidate measured on the odd day."""
    shop = Odd(tmp_path_factory.mktemp("odd"))
    assert shop.night("", 5)["promote"]
    sessions = shop.prepare("", 6)
    model = train(
        shop.artifacts, sessions, ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}}), TRAINING, quiet
    )
    return shop, sessions, evaluate(shop.artifacts, model, sessions, JUDGED, quiet)


def decided(nights: tuple[Odd, Manifest, Manifest], due: datetime | None = None, **guards: float) -> dict[str, Any]:
    """The facts of a comparison with no guards but these."""
    shop, sessions, measured = nights
    promotion = PromotionConfig.model_validate(ANY.model_dump() | {"guards": OFF | guards})
    return compare(shop.artifacts, "shop", measured, sessions, promotion, JUDGED, quiet, due).facts


def test_without_guards_it_takes_over(nights: tuple[Odd, Manifest, Manifest]) -> None:
    facts = decided(nights)
    assert facts["promote"] and facts["verdict"] == "promote" and not any(row["holds"] for row in facts["guards"])
    values = {row["guard"]: row["value"] for row in facts["guards"]}
    assert set(values) == set(GuardsConfig.model_fields) and values["sessions"] == pytest.approx(13 / 20)
    assert values["latency_ms"] is None, "nobody asked for it"


@pytest.mark.parametrize(
    ("name", "tight", "wide", "words"),
    [
        ("sessions", 0.7, 0.6, "Guard sessions: 2026-03-06 has 13 sessions, 65% of the usual 20, and at least 70%"),
        ("quarantine", 0.1, 0.5, "of the test day's rows are in quarantine (item_id_null"),
        ("unknown_share", 0.05, 0.9, "of the test day's events have an unknown item_id, at most 5.0% may"),
        ("drift", 0.01, 1000.0, "the population stability index of"),
        ("age_hours", 10.0, 20.0, "of 2026-03-06 09:14 UTC, is 14.8 hours old, at most 10"),
        ("coverage", 0.5, 0.4, "1 list of 5 holds 41.7% of the catalogue"),
        ("size_mb", 0.001, 100.0, "the model's folder has 0."),
        ("latency_ms", 0.000001, 1e9, "ms on cp"),
    ],
)
def test_each_guard_holds_what_would_take_over(
    name: str, tight: float, wide: float, words: str, nights: tuple[Odd, Manifest, Manifest]
) -> None:
    assert decided(nights, **{name: wide})["promote"]
    facts = decided(nights, **{name: tight})
    assert (facts["promote"], facts["verdict"]) == (False, "hold")
    row = next(row for row in facts["guards"] if row["guard"] == name)
    assert row["holds"] and row["limit"] == tight and words in row["about"] and row["value"] is not None
    for said in (
        words,
        ": promote. But it is held.",
        f"set promotion.guards.{name}.",
        "`overnight promote models/",
    ):
        assert said in facts["reason"], facts["reason"]


def test_guards_are_named_where_the_evidence_does_not_promote_either(nights: tuple[Odd, Manifest, Manifest]) -> None:
    shop, sessions, measured = nights
    promotion = PromotionConfig.model_validate(ANY.model_dump() | {"min_gain": 9.0, "guards": {"sessions": 0.7}})
    facts = compare(shop.artifacts, "shop", measured, sessions, promotion, JUDGED, quiet).facts
    assert facts["verdict"] == "keep" and "Guards would hold it, too. Guard sessions: 2026-03-06 has" in facts["reason"]
    assert "To promote it" not in facts["reason"]


def test_what_guards_hold_leaves_the_pointer_and_by_hand_it_takes_over(
    nights: tuple[Odd, Manifest, Manifest], tmp_path: Path
) -> None:
    shop = Odd(Path(shutil.copytree(nights[0].folder, tmp_path / "shop")))
    before = champion_of(shop.artifacts, "shop")
    sessions, measured = (shop.artifacts.get(manifest.name) for manifest in nights[1:])
    tight = PromotionConfig.model_validate(ANY.model_dump() | {"guards": {"sessions": 0.7}})
    comparison = compare(shop.artifacts, "shop", measured, sessions, tight, JUDGED, quiet)
    assert promote(shop.artifacts, comparison, quiet) == before == champion_of(shop.artifacts, "shop")
    again = compare(shop.artifacts, "shop", measured, sessions, tight, JUDGED, quiet)
    assert again.reused and again.name == comparison.name
    other = tight.model_copy(update={"guards": GuardsConfig(sessions=None, quarantine=None)})
    released = compare(shop.artifacts, "shop", measured, sessions, other, JUDGED, quiet)
    champion = promote(shop.artifacts, released, quiet)
    assert champion and champion.model == measured.parents[0]


def test_the_newest_event_of_a_scheduled_night_is_as_old_as_when_it_is_due(
    nights: tuple[Odd, Manifest, Manifest],
) -> None:
    """Backfilled days are compared with their own end: by today they are all old."""
    due = datetime(2026, 3, 9, 2, tzinfo=UTC)
    assert decided(nights, age_hours=24)["promote"]
    facts = decided(nights, due, age_hours=24)
    assert facts["verdict"] == "hold" and "is 64.8 hours old" in facts["reason"]
    assert decided(nights, due, age_hours=80)["promote"]


def test_a_first_model_is_guarded_by_what_it_is_and_not_by_its_day(nights: tuple[Odd, Manifest, Manifest]) -> None:
    _, sessions, measured = nights
    candidate = nights[0].artifacts.get(measured.parents[0])
    tight = GuardsConfig(sessions=0.9, quarantine=0.0, drift=0.001, age_hours=1, size_mb=0.001, coverage=0.5)
    held = [
        [r["guard"] for r in guard(tight, candidate, measured, sessions, first=first) if r["holds"]] for first in (0, 1)
    ]
    assert held == [["sessions", "quarantine", "drift", "age_hours", "coverage", "size_mb"], ["coverage", "size_mb"]]


def test_a_quiet_weekday_is_compared_with_its_like() -> None:
    monday = date(2026, 3, 2)
    days = [monday + timedelta(days=number) for number in range(28)]
    counts = {str(day): 30 if day.weekday() == 6 else 100 for day in days}
    assert share_of_usual(counts, days[-1]) == (1.0, (f"{days[-1]} has 30 sessions", "30"))
    assert share_of_usual(counts | {str(days[-1]): 12}, days[-1])[0] == 0.4  # type: ignore[index]
    assert share_of_usual(counts, days[2]) is None, "two days are no usual"
    few = {str(day): 100 for day in days[:4]}
    assert share_of_usual(few, days[3]) == (1.0, (f"{days[3]} has 100 sessions", "100"))


def test_unknown_values_of_what_the_model_reads(tmp_path: Path) -> None:
    """Three days of ten items; on the fourth, the source spells them in capitals."""
    rows = [
        (
            f"u{user}",
            f"i{(user + place) % 10}" if day < 3 or user == 0 else f"I{(user + place) % 10}",
            at(day, 9, place),
        )
        for day in range(4)
        for user in range(10)
        for place in range(4)
    ]
    write(tmp_path, rows)
    sessions = run(tmp_path, dataset_of(tmp_path), until=date(2024, 1, 4))
    artifacts = Artifacts(tmp_path / "artifacts")
    model = train(artifacts, sessions, ModelConfig.model_validate({"body": {"dim": 8}}), TRAINING, quiet)
    measured = evaluate(artifacts, model, sessions, EvaluationConfig(baselines=(), cutoffs=(5,)), quiet)
    rows_of = {
        row["guard"]: row for row in guard(GuardsConfig(unknown_share=0.8), model, measured, sessions, first=True)
    }
    assert rows_of["unknown_share"]["value"] == pytest.approx(0.9) and rows_of["unknown_share"]["holds"]
    assert "90.0% of the test day's events have an unknown item_id" in rows_of["unknown_share"]["about"]


def test_a_guard_of_what_is_never_made_is_refused() -> None:
    promotion = PromotionConfig(guards=GuardsConfig(coverage=0.1))
    heads = ModelConfig.model_validate({"heads": {"next_item": {"name": "next_item"}}}).heads
    promotion.check(EvaluationConfig(), heads)
    with pytest.raises(InputError, match=r"promotion\.guards\.coverage is 0\.1, but evaluation\.lists is 0"):
        promotion.check(EvaluationConfig(lists=0), heads)
