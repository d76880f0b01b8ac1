"""What is shown of ranks, lists and slices, and what is said where a baseline is better."""

from __future__ import annotations

from typing import Any

from flows.reports.ranked import (
    beaten_by,
    describe_intervals,
    describe_lists,
    interval_rows,
    list_rows,
    rank_rows,
    slice_rows,
)

MODEL = {"recall@5": 0.1, "mrr@5": 0.05, "ndcg@5": 0.07, "recall@20": 0.2, "mrr@20": 0.06, "ndcg@20": 0.09}
MARKOV = {name: 2 * value for name, value in MODEL.items()}
NAMES = ("catalog_coverage", "gini_index", "avg_rec_popularity", "mean_inv_user_freq", "intra_list_diversity")
FACTS: dict[str, Any] = {
    "cases": 1200,
    "metrics": {"sasrec": MODEL, "markov": MARKOV},
    "intervals": {
        "confidence": 0.95, "method": "a bootstrap", "users": 1000,
        "metrics": {name: {key: [0.01, 0.3] for key in MODEL} for name in ("sasrec", "markov")},
    },
    "ranks": {"sasrec": {"median": 1234.5, "p75": 4000.0, "p90": None}},
    "lists": {
        "count": 100, "diversity": "brand",
        "metrics": {"sasrec": {f"{name}@{k}": 0.5 for k in (5, 20) for name in (*NAMES, "serendipity", "repeats")}},
    },
    "slices": [{
        "slice": "user", "part": "new", "cases": 1100, "users": 900, "interval": [0.02, 0.04],
        "metrics": {"sasrec": {"recall@20": 0.1, "ndcg@20": 0.03}, "markov": {"recall@20": 0.1, "ndcg@20": 0.05}},
    }],
}  # fmt: skip


def test_a_better_baseline_is_named() -> None:
    sentence = "A baseline is better than the model: markov has ndcg@20 0.1800, sasrec 0.0900."
    assert beaten_by(FACTS["metrics"]) == sentence
    assert beaten_by({"sasrec": MARKOV, "markov": MODEL}) == beaten_by({"sasrec": MODEL, "markov": MODEL}) == ""
    assert beaten_by({"sasrec": MODEL}) == beaten_by({"sasrec": {"dwell/rmse": 1.0}, "mean": {"dwell/rmse": 1.0}}) == ""
    assert beaten_by({"sasrec": {"ndcg@20": None}, "markov": {"ndcg@20": None}}) == ""


def test_tables_of_an_evaluation() -> None:
    assert interval_rows(FACTS)[0] == (
        "sasrec",
        {
            "recall@20": "0.2000 (0.0100 to 0.3000)",
            "mrr@20": "0.0600 (0.0100 to 0.3000)",
            "ndcg@20": "0.0900 (0.0100 to 0.3000)",
        },
    )
    brief = interval_rows(FACTS, brief=True)[0][1]
    assert list(brief) == ["ndcg@20", "recall@20", "mrr@20"] and brief["recall@20"] == "0.200 (0.010 to 0.300)"
    low = FACTS | {"metrics": {"sasrec": MODEL | {"ndcg@20": 0.00421}}}
    assert interval_rows(low, brief=True)[0][1]["ndcg@20"] == "0.0042 (0.010 to 0.300)"
    assert "1,000 with 95%: a bootstrap" in describe_intervals(FACTS)
    assert rank_rows(FACTS) == [("sasrec", {"median rank": "1,234.5", "p75 rank": "4,000.0", "p90 rank": "a miss"})]
    assert set(list_rows(FACTS)[0][1].values()) == {"0.5000"} and len(list_rows(FACTS)[0][1]) == 7
    assert describe_lists(FACTS) == "Lists of 20 for 100 of 1,200 cases; diversity by brand."
    cells = {"cases": "1,100", "users": "900", "sasrec": "0.0300 (0.0200 to 0.0400)", "markov": "0.0500"}
    assert slice_rows(FACTS) == [("user: new", cells)]
    bare = slice_rows(FACTS | {"slices": [FACTS["slices"][0] | {"interval": None}]})
    assert bare == [("user: new", cells | {"sasrec": "0.0300"})]


def test_models_of_labels_alone_have_none_of_them() -> None:
    facts: dict[str, Any] = {"cases": 10, "metrics": {"sasrec": {"dwell/rmse": 1.0}, "mean": {"dwell/rmse": 2.0}}}
    assert not interval_rows(facts) + rank_rows(facts) + list_rows(facts) + slice_rows(facts)
    assert describe_intervals(facts) == describe_lists(facts) == ""
