"""What an evaluation under rules says is what the service answers for its test cases, item by item."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from modeling.config import EvaluationConfig
from modeling.evaluation.rank_table import RANKS, read_ranks
from modeling.service.api.app import Service
from modeling.service.api.log import Log
from modeling.service.rules import Rules
from modeling.stages import evaluate
from schemas.artifacts import Manifest
from schemas.serving import Bought
from tests.modeling.service.api.test_answers import NAMES
from tests.modeling.service.conftest import NUM_ITEMS, Shop, item, serving

ALL = [item(number) for number in range(NUM_ITEMS)]
CONFIG = EvaluationConfig(baselines=("popularity",), cutoffs=(3, NUM_ITEMS))


def quiet(line: str) -> None:
    """No progress."""


def table(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"item": ALL} | columns)


ELIGIBLE = {"eligible": [name not in ("i03", "i07") for name in ALL]}
BOOST = {"boost": [2.5 if name == "i05" else 0.0 for name in ALL]}
GROUPS = {"group": [f"g{number % 3}" for number in range(NUM_ITEMS)], "new": [name in ("i01", "i08") for name in ALL]}
RULES = {
    "eligible and boost": Rules(table(**ELIGIBLE, **BOOST)),
    "listed alone": Rules(table().head(7), unlisted=False),
    "not seen": Rules(table(**ELIGIBLE), hide_seen=True),
    "most per group and new": Rules(table(**GROUPS, **BOOST), most_per_group=2, min_new=1),
    "not bought": Rules(table(**ELIGIBLE), hide_bought=Bought(column="event_type", values=("cart",))),
    "all of them": Rules(
        table(**ELIGIBLE, **BOOST, **GROUPS),
        most_per_group=2,
        min_new=1,
        hide_seen=True,
        hide_bought=Bought(column="event_type", values=("cart",)),
    ),
}


def measured(acts: Shop, rules: Rules | None) -> Manifest:
    config = CONFIG.model_copy(update={"rules": rules is not None})
    return evaluate(acts.artifacts, acts.models[0], acts.sessions, config, quiet, rules)


def answers(service: Service, acts: Shop) -> dict[str, list[str]]:
    """The list that the service makes for each test session without its last event."""
    lists: dict[str, list[str]] = {}
    with serving(service) as client:
        for first in range(0, len(acts.test), 50):
            some = acts.test[first : first + 50]
            body = {"sessions": [{"events": events[:-1]} for events in some], "k": NUM_ITEMS}
            answer = client.post("/recommend", json=body)
            assert answer.status_code == 200, answer.text
            for events, of in zip(some, answer.json()["sessions"], strict=True):
                lists[events[0]["user"]] = [row["item"] for row in of["items"]]
                assert {row["source"] for row in of["items"]} <= {"model"}
    return lists


@pytest.mark.parametrize("name", RULES)
def test_ranks_and_lists_are_those_of_the_service(acts: Shop, service_of: Callable[..., Service], name: str) -> None:
    rules = RULES[name]
    waiting = [rules]
    evaluation = measured(acts, rules)
    lists = answers(service_of(log=Log(NAMES), read_rules=lambda: waiting.pop() if waiting else None), acts)
    rows = pl.read_parquet(evaluation.folder / RANKS)  # in the order of the cases
    rows = rows.filter(pl.col("scorer") == evaluation.facts["model"])
    targets = {events[0]["user"]: events[-1]["sku"] for events in acts.test}
    assert rows.height == len(acts.test)
    for user, rank in rows.select("user", "rank").iter_rows():
        place = lists[user].index(targets[user]) + 1 if targets[user] in lists[user] else math.inf
        assert rank == place, f"{user}: {targets[user]} in {lists[user]}"
    examples = json.loads((evaluation.folder / "examples.json").read_text())
    chosen = [rows["user"][number * rows.height // len(examples)] for number in range(len(examples))]
    assert [example["recommended"] for example in examples] == [lists[user] for user in chosen]
    assert [example["next"] for example in examples] == [targets[user] for user in chosen]


def test_targets_that_rules_forbid_are_counted_as_misses(acts: Shop) -> None:
    free, ruled = measured(acts, None), measured(acts, RULES["eligible and boost"])
    targets = [events[-1]["sku"] for events in acts.test]
    forbidden = sum(target in ("i03", "i07") for target in targets)
    about, body = ruled.facts["rules"], ruled.facts["model"]
    assert forbidden and about["forbidden_targets"] == forbidden and about["catalogue"] == NUM_ITEMS - 2
    assert about["rank"] == "score" and "rules" not in free.facts
    for scorer in (body, "popularity"):  # nothing else is missed in a list of all items
        assert ruled.facts["metrics"][scorer][f"recall@{NUM_ITEMS}"] == pytest.approx(1 - forbidden / len(targets))
    assert about["without"].items() <= free.facts["metrics"][body].items()
    with_rules, without = (read_ranks(made.folder, body) for made in (ruled, free))
    assert with_rules["rank_without_rules"].to_list() == without["rank"].to_list() != with_rules["rank"].to_list()
    assert read_ranks(ruled.folder, "popularity")["rank_without_rules"].null_count() == len(targets)


def test_what_was_bought_before_is_forbidden(acts: Shop) -> None:
    ruled = measured(acts, RULES["not bought"])
    forbidden = 0
    for events in acts.test:
        bought = {event["sku"] for event in events[:-1] if event["act"] == "cart"}
        forbidden += events[-1]["sku"] in bought | {"i03", "i07"}
    assert ruled.facts["rules"]["forbidden_targets"] == forbidden
    assert forbidden > sum(events[-1]["sku"] in ("i03", "i07") for events in acts.test)
    assert ruled.facts["rules"]["rank"] == "list"


def test_examples_say_which_events_recommendations_lean_on(acts: Shop) -> None:
    from modeling.service.recommender import Recommender

    rules = RULES["most per group and new"]
    evaluation = measured(acts, rules)
    examples = json.loads((evaluation.folder / "examples.json").read_text())
    rows = pl.read_parquet(evaluation.folder / RANKS)
    users = rows.filter(pl.col("scorer") == evaluation.facts["model"])["user"]
    recommender = Recommender(acts.models[0].folder, "cpu", borrow=False, rules=rules)
    of_user = {events[0]["user"]: events[:-1] for events in acts.test}
    for number, example in enumerate(examples):
        events = of_user[users[number * len(users) // len(examples)]]
        table = recommender.sessions_of_events(pl.DataFrame(events).rename(NAMES))[0]
        (reasons,) = recommender.because(table, NUM_ITEMS, events=2)
        assert example["recommended"] == [reason.item for reason in reasons]
        for mine, reason in zip(example["because"], reasons, strict=True):
            assert [event for event, _ in mine] == [event for event, _ in reason.events]
            assert [fall for _, fall in mine] == pytest.approx([fall for _, fall in reason.events], abs=1e-5)


def test_an_evaluation_is_named_by_its_rules(acts: Shop) -> None:
    names = {measured(acts, rules).name for rules in (None, *RULES.values())}
    assert len(names) == len(RULES) + 1
    again = measured(acts, Rules(table(**ELIGIBLE, **BOOST).reverse()))
    assert again.reused and again.name in names, "the order of the table says nothing"
    assert again.parameters["rules"]["digest"] == again.facts["rules"]["digest"]


def test_rules_are_kept_for_the_model_that_is_compared(acts: Shop) -> None:
    from modeling.stages.under_rules import rules_kept

    for rules in RULES.values():
        evaluation = measured(acts, rules)
        kept = rules_kept(evaluation)
        assert kept is not None and kept.about() == rules.about()
    assert rules_kept(measured(acts, None)) is None
