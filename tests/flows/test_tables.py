"""What was counted and measured, as tables show it."""

from __future__ import annotations

from flows.reports.charts import draw_curves
from flows.reports.tables import (
    MOST_FILES,
    UNDEFINED,
    describe_item_cases,
    describe_label_cases,
    describe_refit,
    describe_training,
    evaluation_warnings,
    format_days,
    item_rows,
    label_rows,
    left_out_rows,
    markdown_table,
)

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


def facts_of(**changed: object) -> dict[str, object]:
    facts = {
        "metrics": METRICS, "cases": 300, "too_short": 0, "unknown_targets": 0, "cold_targets": 0, "seen_targets": 221,
        "catalogue": 60, "vocabulary": 60, "filter_seen": False, "learned_from_test_day": False, "ties": "ties count half",
    }  # fmt: skip
    return facts | changed


def test_what_is_undefined_is_shown_as_such_and_last() -> None:
    undefined = {name: {"recall@5": None, "ndcg@5": None} for name in ("sasrec", "popularity")}
    assert item_rows(undefined) == list(undefined.items())
    rows = item_rows({"sasrec": {"ndcg@5": None}, "markov": {"ndcg@5": None}, "popularity": {"ndcg@5": 0.1}})
    assert [name for name, _ in rows] == ["sasrec", "popularity", "markov"]
    facts = facts_of(metrics=undefined, cases=0, unknown_targets=300, seen_targets=0)
    assert describe_item_cases(facts).startswith("Last item of 0 of 300 test sessions (0.0%; left out: 300 that end in")
    assert evaluation_warnings(facts) == ["No test session can be measured: the metrics of items are undefined."]


def test_cases_are_described_with_what_is_left_out() -> None:
    assert describe_item_cases(facts_of()) == (
        "Last item of 300 of 300 test sessions (100.0%) ranked among all 60 items that can be recommended, ties count half. "
        "Seen items kept: 73.7% of these targets are in their session already."
    )
    text = describe_item_cases(
        facts_of(
            cases=200,
            seen_targets=50,
            too_short=40,
            unknown_targets=1000,
            cold_targets=10,
            vocabulary=120,
            filter_seen=True,
        )
    )
    assert "200 of 1,250 test sessions (16.0%; left out: 40 of one event, 1,000 that end in an item unknown" in text
    assert "10 that end in an item without a training event)" in text
    assert "all 60 items that can be recommended of 120 in the vocabulary" in text
    assert text.endswith(
        "Seen items filtered: 25.0% of these targets are in their session already and count as misses."
    )


def test_a_model_that_learned_from_the_test_is_warned_of() -> None:
    assert evaluation_warnings(facts_of()) == []
    assert "learned from what it is tested on" in evaluation_warnings(facts_of(learned_from_test_day=True))[0]
    assert evaluation_warnings(facts_of(metrics={"sasrec": {"dwell/rmse": 1.0}}, cases=0)) == []


def test_what_labels_were_measured_on_is_said() -> None:
    bought = {"cases": 7, "per": "session", "training_mean": None}
    dwell = {"cases": 1234, "per": "event", "training_mean": 9.5}
    sentences = describe_label_cases({"labels": {"bought": bought, "dwell": dwell}})
    assert "bought: 7 test sessions that have it" in sentences and f"training, {UNDEFINED}," in sentences
    assert "dwell: 1,234 test events that have it" in sentences and "training, 9.5000," in sentences


def test_curves_stand_two_side_by_side() -> None:
    drawn = draw_curves({name: [(1.0, 2.0), (2.0, 3.0)] for name in ("a", "b", "c")})
    assert 'viewBox="0 0 760 380"' in drawn
    assert drawn.count("translate(0 ") == 2 and "translate(0 190)" in drawn


def test_days_in_a_row_are_one_span() -> None:
    days = ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-09", "2024-03-09", "2024-01-31"]
    assert format_days(days) == "2024-01-31, 2024-02-28 to 2024-03-01, 2024-03-09"
    assert format_days([]) == ""


def test_what_is_not_in_the_sessions_is_listed_worst_first() -> None:
    facts = {
        "missing_days": ["2024-01-03", "2024-01-04"],
        "left_out": [["events/2.csv", "it is empty"], ["events/[3].csv", "no permission"]],
        "quarantined": {"item_id_null": 3, "too_late": 1234, "readable": 0},
    }
    rows = left_out_rows(facts)
    assert [which for _, which in rows] == ["2024-01-03 to 2024-01-04", "it is empty", "no permission", "3", "1,234"]
    assert rows[2][0] == "file not read: events/[3].csv"
    assert rows[4][0] == "rows in quarantine, too_late: rows that arrived after their day was finished"
    assert left_out_rows({}) == []


def test_many_files_are_counted() -> None:
    files = [[f"{number}.csv", "empty"] for number in range(MOST_FILES + 7)]
    rows = left_out_rows({"left_out": files})
    assert len(rows) == MOST_FILES + 1 and rows[-1] == ("more files not read", "7")
    assert len(left_out_rows({"left_out": files[:MOST_FILES]})) == MOST_FILES


def test_markdown_has_a_cell_for_every_column() -> None:
    table = [("bought/auc", {"sasrec": "0.5000", "mean": "0.1000"}), ("dwell/rmse", {"sasrec": "1.0000"})]
    assert markdown_table("label", table)[1:] == [
        "| label | sasrec | mean |",
        "|---|---|---|",
        "| bought/auc | 0.5000 | 0.1000 |",
        "| dwell/rmse | 1.0000 |  |",
    ]


def test_a_model_says_which_days_it_was_trained_and_tested_on_and_who_is_new() -> None:
    days = {"rule": "day", "train": ["2026-03-01", "2026-03-07"], "test": ["2026-03-08", "2026-03-08"]}
    split = days | {"test_users": 1200, "cold_users": 40, "test_items": 90, "cold_items": 0}
    assert describe_training({}, {"split": split}) == (
        "Trained on 2026-03-01 to 2026-03-07, tested on 2026-03-08. "
        "New to training: 40 of 1,200 users and 0 of 90 hidden items."
    )
    choice = {"choice": {"epochs": 4, "of_epochs": 9, "goal": "ndcg@20", "days": ["2026-03-06", "2026-03-07"]}}
    assert describe_training(choice, {"split": days}).endswith(
        "4 of 9 epochs were best by ndcg@20 on 2026-03-06 to 2026-03-07, held out whole, with which the model was then "
        "trained again."
    )
    assert describe_training({}, {}) == describe_training({"choice": None}, {"split": {"train": None}}) == ""


def test_a_refit_is_named_with_what_it_took_in() -> None:
    refit = {"name": "models/2", "refit_of": "models/1", "split": {"test": ["2026-03-07", "2026-03-08"]}}
    assert describe_refit(refit) == (
        "In service is models/2: models/1, which was tested on 2026-03-07 to 2026-03-08 here, trained again with that."
    )
    assert "which was tested on the last items here" in describe_refit(refit | {"split": {"test": None}})
    assert describe_refit(None) == ""


def test_a_bar_in_a_name_ends_no_cell() -> None:
    lines = markdown_table("model", [("a | b", {"against a | b": "x"}), ("c", {"against a | b": "y | z"})])
    assert lines[1:] == [r"| model | against a \| b |", "|---|---|", r"| a \| b | x |", r"| c | y \| z |"]
