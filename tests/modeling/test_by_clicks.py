"""`promotion.clicks`: what people click says whether the second model takes over, and what a night promotes waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling.config import ModelConfig, PromotionConfig
from modeling.evaluation.pointer import champion_of, put_in_service, set_hold
from modeling.service.tracking.always_valid import difference
from modeling.service.tracking.store import Store, tracked_folder
from modeling.stages import compare, evaluate, promote, train
from modeling.stages.seconding import seconded
from schemas.artifacts import Manifest
from schemas.errors import InputError
from schemas.serving import SideBySide
from tests.cases.test_model_in_service import ANY, CONFIG, TRAINING, Shop, quiet
from tests.modeling.service.tracking.test_table import NOON

CLICKS = PromotionConfig(metric="ndcg@5", clicks=True)
ANY_CLICKS = ANY.model_copy(update={"clicks": True})  # whose metric is always good enough


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, Manifest, Manifest, str]:
    """A model in service, the night's sessions and evaluation, and a second model."""
    shop = Shop(tmp_path_factory.mktemp("clicks"))
    assert shop.night("", 5)["promote"]
    sessions = shop.prepare("", 6)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    models = [
        train(shop.artifacts, sessions, config, TRAINING.model_copy(update={"seed": seed}), quiet) for seed in (3, 4)
    ]
    return shop, sessions, evaluate(shop.artifacts, models[1], sessions, CONFIG, quiet), models[0].name


class Night:
    """A copy of that, and what people do in it."""

    def __init__(self, night: tuple[Shop, Manifest, Manifest, str], folder: Path) -> None:
        self.shop, (_, self.sessions, _, self.second) = night[0].copy(folder), night
        self.evaluation = self.shop.artifacts.get(night[2].name)
        self.champion = self.in_service

    @property
    def in_service(self) -> str:
        champion = champion_of(self.shop.artifacts, "shop")
        assert champion
        return champion.model

    def clicked(self, rates: tuple[float, float], users: int = 1000, salt: str = "") -> None:
        """Users of each arm were shown ten items in an answer, of which they clicked so many."""
        store = Store(tracked_folder(self.shop.artifacts.root, "shop"), "plain")
        store.start()
        draw, answers, events = np.random.default_rng(5), [], []
        for arm, model, against, rate in (
            ("a", self.champion, self.second, rates[0]),
            ("b", self.second, self.champion, rates[1]),
        ):
            for user, count in enumerate(draw.binomial(10, rate, users)):
                name = f"{salt}{arm}{user}"
                about = {"recommendation_id": name, "timestamp": NOON}
                of = {"model": model, "arm": arm, "against": against, "salt": salt, "user_id": name}
                answers.append(about | of | {"items": list("abcdefghij"), "sources": ["model"] * 10})
                event = about | {"event_type": "impression", "received": NOON}
                events += [event, *(event | {"event_type": "click", "item_id": item} for item in "abcdefghij"[:count])]
        store.note(answers)
        store.submit(events).result(60)
        store.stop()

    def decide(self, promotion: PromotionConfig = CLICKS, model: str | None = None, salt: str = "") -> dict[str, Any]:
        wanted = SideBySide(model=model or self.second, salt=salt)
        made = compare(
            self.shop.artifacts, "shop", self.evaluation, self.sessions, promotion, CONFIG, quiet, side_by_side=wanted
        )
        promote(self.shop.artifacts, made, quiet)
        return made.facts


@pytest.fixture
def tonight(night: tuple[Shop, Manifest, Manifest, str], tmp_path: Path) -> Night:
    return Night(night, tmp_path)


def test_what_metrics_promote_is_held_until_people_have_seen_it(tonight: Night) -> None:
    candidate = tonight.evaluation.parents[0]
    facts = tonight.decide(ANY_CLICKS)
    assert (facts["promote"], facts["verdict"], tonight.in_service) == (False, "hold", tonight.champion)
    assert f"serving.side_by_side.model: {candidate}, in place of {tonight.second}" in facts["reason"]
    assert facts["clicks"]["verdict"] == "hold" and facts["clicks"]["interval"] is None
    assert "of 0 and 0 users; 100 users and 20 clicks of each are the least" in facts["reason"]
    assert "clicks" not in tonight.decide(ANY) and tonight.in_service == candidate, "off by default"


def test_a_second_model_that_loses_no_more_than_the_margin_takes_over(tonight: Night) -> None:
    tonight.clicked((0.2, 0.3))
    facts = tonight.decide()
    assert facts["clicks"]["verdict"] == "promote" and tonight.in_service == tonight.second
    assert not facts["promote"], "of tonight's candidate nobody knows"
    low, high = facts["clicks"]["interval"]
    assert 0 < low < 0.3 - 0.99 * 0.2 < high and facts["clicks"]["users"] == [1000, 1000]
    assert f"By clicks {tonight.second}, the second model, is clicked" in facts["reason"]
    assert facts["reason"].endswith("a loss of 1.0% allowed, of 1,000 and 1,000 users): promote.")
    champion = champion_of(tonight.shop.artifacts, "shop")
    assert champion and champion.history[-1].by == "clicks" and champion.previous == tonight.champion
    assert champion.history[-1].because in facts["reason"]
    assert tonight.decide()["clicks"] is None, "there is nothing to compare any more"


def test_a_second_model_that_loses_more_stays_the_second(tonight: Night) -> None:
    tonight.clicked((0.3, 0.2))
    facts = tonight.decide()
    assert facts["clicks"]["verdict"] == "keep" and tonight.in_service == tonight.champion
    assert facts["reason"].endswith("what is in service stays.")


def test_equal_models_are_held_until_a_loss_beyond_the_margin_is_excluded(tonight: Night) -> None:
    tonight.clicked((0.2, 0.2))
    assert tonight.decide()["clicks"]["verdict"] == "hold"
    margin = CLICKS.model_copy(update={"margin": 0.5})
    asked = CLICKS.model_copy(update={"min_gain": 0.0})
    assert tonight.decide(asked)["clicks"]["verdict"] == "hold" and tonight.in_service == tonight.champion
    facts = tonight.decide(margin)
    assert facts["clicks"]["verdict"] == "promote" and tonight.in_service == tonight.second


def test_more_clicks_are_another_comparison(tonight: Night) -> None:
    tonight.clicked((0.2, 0.2), users=200)
    before = tonight.decide()
    assert tonight.decide() == before
    tonight.clicked((0.2, 0.9), users=1500, salt="")
    after = tonight.decide()
    assert after["clicks"]["users"] > before["clicks"]["users"] and after["clicks"]["verdict"] == "promote"


def test_users_of_another_salt_are_another_comparison(tonight: Night) -> None:
    tonight.clicked((0.2, 0.3), salt="spring")
    assert tonight.decide(salt="")["clicks"]["users"] == [0, 0]
    assert tonight.decide(salt="spring")["clicks"]["verdict"] == "promote"


def test_the_candidate_itself_may_be_the_second_model(tonight: Night) -> None:
    tonight.second = candidate = tonight.evaluation.parents[0]
    facts = tonight.decide(ANY_CLICKS)
    assert facts["verdict"] == "hold" and "To show it to people" not in facts["reason"]
    tonight.clicked((0.2, 0.3))
    assert tonight.decide(ANY_CLICKS)["clicks"]["verdict"] == "promote" and tonight.in_service == candidate


def test_a_model_whose_metric_says_keep_is_not_promoted_by_clicks() -> None:
    facts = {"champion": "models/a1", "candidate": "models/b2", "dataset": "shop", "not_compared": "", "guards": []}
    facts |= {"promote": False, "verdict": "keep", "reason": "Worse."}
    clicks = {"champion": "models/a1", "challenger": "models/b2", "verdict": "promote", "says": "Better."}
    said = seconded(facts, clicks, CLICKS)
    assert said["clicks"]["verdict"] == "keep" and said["reason"].startswith(
        "Worse. Better. But its metric says to keep"
    )
    other = seconded(facts, clicks | {"challenger": "models/c3"}, CLICKS)
    assert other["clicks"]["verdict"] == "promote" and other["reason"] == "Worse. Better."
    assert seconded(facts, None, ANY) == seconded(facts | {"champion": None}, None, CLICKS) == {}


@pytest.mark.parametrize("changes", [{"verdict": "hold"}, {"verdict": "promote", "promote": True}])
def test_what_people_could_tell_is_named(changes: dict[str, Any]) -> None:
    facts = {"champion": "models/a1", "candidate": "models/b2", "dataset": "shop", "not_compared": "", "guards": []}
    said = seconded(facts | {"promote": False, "reason": "Open."} | changes, None, CLICKS)
    assert said["verdict"] == "hold" and not said["promote"]
    assert "serving.side_by_side.model: models/b2; or `overnight promote models/b2 --dataset shop`" in said["reason"]
    guarded = seconded(
        facts | {"promote": False, "verdict": "hold", "reason": "Old.", "guards": [{"holds": True}]}, None, CLICKS
    )
    assert guarded == {"clicks": None, "reason": "Old."}
    broken = seconded(
        facts | {"promote": True, "verdict": "promote", "reason": "New.", "not_compared": "gone"}, None, CLICKS
    )
    assert broken == {"clicks": None, "reason": "New."}, "nothing else could be in service"


def test_what_a_person_decided_stays(tonight: Night) -> None:
    tonight.clicked((0.2, 0.3))
    set_hold(tonight.shop.artifacts, "shop", True, "a sale")
    facts = tonight.decide()
    assert tonight.in_service == tonight.champion and "held by hand" in facts["clicks"]["says"]
    set_hold(tonight.shop.artifacts, "shop", False)
    assert tonight.decide()["clicks"]["verdict"] == "promote" and tonight.in_service == tonight.second
    put_in_service(tonight.shop.artifacts, "shop", tonight.champion, by="rollback")
    facts = tonight.decide()
    assert tonight.in_service == tonight.champion and "was taken out of service on" in facts["clicks"]["says"]


def test_clicks_that_cannot_be_read_decide_nothing(tonight: Night) -> None:
    tonight.clicked((0.2, 0.3))
    part = next((tracked_folder(tonight.shop.artifacts.root, "shop") / "clicks").rglob("*.parquet"))
    part.write_bytes(b"PAR1")
    facts = tonight.decide()
    assert tonight.in_service == tonight.champion and "Clicks cannot be counted" in facts["reason"]


def test_a_margin_widens_nothing_but_moves_the_difference() -> None:
    """The variance of b - .9 a, by drawing users many times."""
    draw = np.random.default_rng(3)
    shown = np.full(4000, 10.0)
    estimates = []
    for _ in range(300):
        a, b = draw.binomial(10, draw.beta(2, 6, 4000)), draw.binomial(10, draw.beta(2, 6, 4000))
        seen = difference(shown, a.astype(float), shown, b.astype(float), 0.05, times=0.9)
        estimates.append(seen.estimate)
        assert seen.low is not None and seen.high is not None and seen.low < 0.1 * 0.25 < seen.high
    plain = difference(shown, a.astype(float), shown, b.astype(float), 0.05)
    assert plain.low is not None and plain.high is not None and seen.low is not None and seen.high is not None
    assert np.mean(estimates) == pytest.approx(0.1 * 0.25, abs=0.0005)
    ratio = (seen.high - seen.low) / (plain.high - plain.low)
    assert ratio == pytest.approx(np.sqrt((1 + 0.81) / 2), abs=0.01)


def test_clicks_that_nobody_tracks_decide_nothing(tmp_path: Path) -> None:
    from flows.settings.settings import Data, resolve

    def resolved(**serving: Any) -> None:
        changes = {f"serving.{name}": value for name, value in serving.items()}
        resolve(Data(source=str(tmp_path), changes=changes), None, {"promotion": {"clicks": True}})

    with pytest.raises(InputError, match=r"promotion.clicks is true, and 'demo' tracks no clicks: add `serving:"):
        resolved()
    with pytest.raises(InputError, match=r"serving.side_by_side.model is previous: clicks decide whether a model"):
        resolved(tracking={}, side_by_side={"model": "previous"})
    resolved(tracking={}, side_by_side={"model": "models/1f2e"})
