"""Rules of what may be recommended: a list under rules is the best of those that keep them, found by trying all."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling.evaluation.ranking import top_k
from modeling.service import rules as rules_module
from modeling.service.recommender import Recommender
from modeling.service.rules import Rules
from schemas.errors import InputError
from schemas.serving import Bought
from tests.modeling.service.conftest import NUM_ITEMS, Shop, item

ALL = [item(number) for number in range(NUM_ITEMS)]


def under(acts: Shop, rules: Rules) -> Recommender:
    return Recommender(acts.models[0].folder, "cpu", borrow=False, rules=rules)


def table(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"item": ALL} | columns)


def scores(recommender: Recommender, history: list[str]) -> dict[str, float]:
    found = recommender.recommend_table(pl.DataFrame({"item_id": history}), NUM_ITEMS)
    return dict(zip(found["item"], found["score"], strict=True))


def test_items_that_are_not_eligible_are_in_no_list(acts: Shop) -> None:
    history = [["i03", "i04"]]
    free = acts.recommender().recommend(history, 5)[0]
    rules = Rules(table(eligible=[name != free[0] for name in ALL]))
    assert free[0] not in (kept := under(acts, rules).recommend(history, 5)[0]) and kept[:4] == free[1:]
    listed = Rules(pl.DataFrame({"item": [free[2], free[1], "elsewhere"]}), unlisted=False)
    assert under(acts, listed).recommend(history, 5)[0] == free[1:3]
    assert under(acts, listed).popular(5) == [name for name in acts.recommender().popular(12) if name in free[1:3]]
    nulls = Rules(table(eligible=[None if name == free[0] else True for name in ALL]))
    assert under(acts, nulls).recommend(history, 5)[0] == kept


def test_boosts_are_added_to_scores(acts: Shop) -> None:
    history = ["i03", "i04"]
    before = scores(acts.recommender(), history)
    last = min(before, key=lambda name: before[name])
    boost = [
        100.0 if name == last else odd for name, odd in zip(ALL, [None, float("inf"), float("nan")] * 4, strict=True)
    ]
    found = under(acts, Rules(table(boost=boost))).recommend_table(pl.DataFrame({"item_id": history}), 12)
    assert found["item"][0] == last and found["score"][0] == pytest.approx(before[last] + 100, abs=1e-4)
    assert found["item"].to_list()[1:] == [
        name for name in acts.recommender().recommend([history], 12)[0] if name != last
    ]


def best(
    scored: dict[str, float], groups: dict[str, Any], most: int | None, new: set[str], min_new: int, k: int
) -> list[str]:
    """New items until there are enough, then the best, never more than `most` of a group: one after the other."""
    order, taken, count = sorted(scored, key=lambda name: -scored[name]), [], {}
    for wanted, limit in (((name for name in order if name in new), min(min_new, k)), (iter(order), k)):
        for name in wanted:
            group = groups[name]
            if len(taken) >= limit or name in taken or (most and group is not None and count.get(group, 0) >= most):
                continue
            taken.append(name)
            count[group] = count.get(group, 0) + 1
    return sorted(taken, key=lambda name: -scored[name])


@pytest.mark.parametrize("seed", range(12))
def test_groups_and_new_items_are_as_if_chosen_one_after_the_other(acts: Shop, seed: int) -> None:
    draw = random.Random(seed)
    group = [draw.choice(["a", "b", "c", None]) for _ in ALL]
    new = [draw.random() < 0.3 for _ in ALL]
    eligible = [draw.random() < 0.9 for _ in ALL]
    most, min_new, k = draw.choice([None, 1, 2]), draw.choice([0, 1, 3]), draw.choice([1, 3, 6, 12])
    rules = Rules(table(group=group, new=new, eligible=eligible), most_per_group=most, min_new=min_new)
    histories = [[draw.choice(ALL) for _ in range(draw.randrange(1, 5))] for _ in range(20)]
    found = under(acts, rules).recommend(histories, k)
    recommender = acts.recommender()
    for history, got in zip(histories, found, strict=True):
        scored = {name: score for name, score in scores(recommender, history).items() if eligible[ALL.index(name)]}
        named = dict(zip(ALL, group, strict=True))
        wanted = best(scored, named, most, {name for name, is_new in zip(ALL, new, strict=True) if is_new}, min_new, k)
        assert got == wanted


def test_what_was_bought_is_not_recommended_again(acts: Shop) -> None:
    what = ["view", "cart", "view", "view", "view"]
    skus = ["i01", "i02", "i03", "i02", "i03"]
    events = pl.DataFrame({"session_id": [1, 1, 1, 2, 2], "item_id": skus, "event_type": what})
    rules = Rules(hide_bought=Bought(values=("cart",)))
    found = under(acts, rules).recommend(events, NUM_ITEMS)
    free = acts.recommender().recommend(events, NUM_ITEMS)
    assert found == [[name for name in free[0] if name != "i02"], free[1]]
    with pytest.raises(InputError, match="never gift; it is "):
        under(acts, Rules(hide_bought=Bought(values=("gift",)))).recommend(events)
    with pytest.raises(InputError, match="no categorical feature of the column 'what'"):
        under(acts, Rules(hide_bought=Bought(column="what"))).recommend(events)


def test_rules_go_together_with_what_was_seen(acts: Shop) -> None:
    rules = Rules(table(group=["a"] * 6 + ["b"] * 6), most_per_group=2, hide_bought=Bought(values=("cart",)))
    events = pl.DataFrame({"item_id": ["i01", "i07"], "event_type": ["cart", "view"]})
    found = under(acts, rules).recommend(events, 12, filter_seen=True)[0]
    assert len(found) == 4 and not {"i01", "i07"} & set(found)
    assert sum(name < "i06" for name in found) == 2


def test_other_rules_are_kept_from_then_on(acts: Shop) -> None:
    recommender, history = acts.recommender(), [["i03", "i04"]]
    free = recommender.recommend(history, 3)
    recommender.set_rules(Rules(table(eligible=[name == "i05" for name in ALL])))
    assert recommender.recommend(history, 3) == [["i05"]]
    with pytest.raises(InputError):
        recommender.set_rules(Rules(hide_bought=Bought(column="what")))
    assert recommender.recommend(history, 3) == [["i05"]]
    recommender.set_rules(None)
    assert recommender.recommend(history, 3) == free


def test_ids_of_another_type_are_those_of_the_catalogue(tmp_path: Path) -> None:
    from tests.modeling.test_inputs import model_of
    from tests.modeling.test_items import write_folder

    folder = write_folder(model_of(), tmp_path)
    values = Recommender(folder, "cpu").items["value"].drop_nulls().to_list()
    rules = Rules(pl.DataFrame({"item": [int(values[-1]), 10**9]}), unlisted=False)
    assert Recommender(folder, "cpu", rules=rules).recommend([["40"]], 3) == [[values[-1]]]


def test_rules_that_cannot_be_met_do_not_sort_the_whole_catalogue(acts: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer groups or fewer new items than asked for: what there is, without looking for more."""
    asked: list[int] = []

    def counted(scorer: Any, histories: Any, k: int, **options: Any) -> Any:
        asked.append(k)
        return top_k(scorer, histories, k, **options)

    monkeypatch.setattr(rules_module, "top_k", counted)
    few = Rules(table(group=["a"] * 6 + ["b"] * 6), most_per_group=1)
    found = under(acts, few).recommend([["i03", "i04"]] * 3, 5)
    assert [len(items) for items in found] == [2, 2, 2] and max(asked) <= NUM_ITEMS
    asked.clear()
    none_new = Rules(table(new=[name == "i07" for name in ALL]), min_new=3)
    found = under(acts, none_new).recommend([["i03", "i04"]] * 3, 2)
    assert all(len(items) == 2 and "i07" in items for items in found) and asked == [4, 4]
