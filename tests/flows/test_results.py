"""Metrics of models with several heads, as tables show them."""

from __future__ import annotations

from flows.reports.report import draw_curves
from flows.reports.results import UNDEFINED, about_labels, item_rows, label_rows

METRICS = {
    "sasrec": {"recall@5": 0.2, "ndcg@5": 0.1, "ndcg@20": 0.3, "bought/auc": None, "dwell/rmse": 12.34567},
    "popularity": {"recall@5": 0.1, "ndcg@5": 0.2, "ndcg@20": 0.1},
    "markov": {"recall@5": 0.1, "ndcg@5": 0.1, "ndcg@20": 0.2},
    "mean": {"bought/auc": None, "dwell/rmse": 20.0},
}


def test_items_and_labels_have_tables_of_their_own() -> None:
    rows = item_rows(METRICS)
    assert [name for name, _ in rows] == ["sasrec", "markov", "popularity"], "the model, then the best"
    assert list(rows[0][1]) == ["recall@5", "ndcg@5", "ndcg@20"]
    assert label_rows(METRICS) == [
        ("bought/auc", {"sasrec": UNDEFINED, "mean": UNDEFINED}),
        ("dwell/rmse", {"sasrec": "12.3457", "mean": "20.0000"}),
    ]


def test_models_of_one_kind_of_head_have_one_table() -> None:
    labels = {name: {"dwell/rmse": 1.0} for name in ("sasrec", "mean")}
    assert item_rows(labels) == []
    assert label_rows({"sasrec": {"ndcg@20": 0.1}, "popularity": {"ndcg@20": 0.1}}) == []


def test_what_labels_were_measured_on_is_said() -> None:
    bought = {"cases": 7, "per": "session", "training_mean": None}
    dwell = {"cases": 1234, "per": "event", "training_mean": 9.5}
    told = about_labels({"labels": {"bought": bought, "dwell": dwell}})
    assert "bought: 7 test sessions that have it" in told and f"training, {UNDEFINED}," in told
    assert "dwell: 1,234 test events that have it" in told and "training, 9.5000," in told


def test_curves_stand_two_side_by_side() -> None:
    drawn = draw_curves({name: [(1.0, 2.0), (2.0, 3.0)] for name in ("a", "b", "c")})
    assert 'viewBox="0 0 760 380"' in drawn
    assert drawn.count("translate(0 ") == 2 and "translate(0 190)" in drawn
