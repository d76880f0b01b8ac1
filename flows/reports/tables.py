"""What a run counted and measured, as the rows and sentences that a page, the Prefect UI and a terminal show alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

Values = dict[str, float | None]  # None: undefined on these cases
Metrics = dict[str, Values]  # by scorer, the model first
SHOWN = 10  # recommendations of an example
UNDEFINED = "undefined"
BAR = r"\|"  # within a cell of a Markdown table
MOST_FILES = 20  # that are named one by one
LEFT_OUT = {
    "too_short": "of one event",
    "unknown_targets": "that end in an item unknown before the test day",
    "cold_targets": "that end in an item without a training event",
}  # by fact of an evaluation
RULES = {"too_late": "rows that arrived after their day was finished"}


def session_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts of a sessions manifest -> (what, how many), in the order of the rows' way through the preparation."""
    counts = [("rows in", facts["rows_in"]), ("carried in from the day before", facts["carried_in"])]
    counts += [(f"quarantined: {rule}", count) for rule, count in facts["quarantined"].items()]
    counts += [(f"dropped: {name}", count) for name, count in facts["dropped"].items()]
    counts += [("still open", facts["still_open"]), ("events", facts["events"]), ("sessions", facts["sessions"])]
    counts += [("items", facts["items"]), ("new items on the last day", facts["new_items"])]
    lengths = ", ".join(f"{name} {length:.0f}" for name, length in facts["lengths"].items())
    return [(name, f"{count:,}") for name, count in counts] + [("session lengths on the last day", lengths)]


def phase_seconds(facts: dict[str, Any]) -> str:
    """Facts of a sessions manifest -> how long each phase took: `read 0.1, clean 2.0`."""
    return ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in facts.get("seconds", {}).items())


def left_out_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts of a sessions manifest -> (what is not in the sessions, which or how much of it), most serious first."""
    rows = []
    if days := facts.get("missing_days", []):
        rows.append(("finished days whose files are lost and whose events are gone from the source", format_days(days)))
    files = facts.get("left_out", [])
    rows += [(f"file not read: {path}", str(reason)) for path, reason in files[:MOST_FILES]]
    if more := len(files) - MOST_FILES:
        rows += [("more files not read", f"{more:,}")] * (more > 0)
    for rule, count in facts.get("quarantined", {}).items():
        if count:
            name = f"{rule}: {RULES[rule]}" if rule in RULES else rule
            rows.append((f"rows in quarantine, {name}", f"{count:,}"))
    return rows


def format_days(days: Iterable[str]) -> str:
    """Days as YYYY-MM-DD -> `2024-01-03 to 2024-01-05, 2024-01-09`."""
    spans: list[tuple[date, date]] = []
    for day in sorted(map(date.fromisoformat, days)):
        if spans and day <= spans[-1][1] + timedelta(days=1):
            spans[-1] = (spans[-1][0], day)
        else:
            spans.append((day, day))
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in spans)


def item_rows(metrics: Metrics) -> list[tuple[str, Values]]:
    """(scorer, its metrics as in ndcg@20) of the model, then of the baselines, best NDCG first; none if no item is ranked."""
    rows = []
    for name, values in metrics.items():
        if ranked := {key: value for key, value in values.items() if "@" in key}:
            rows.append((name, ranked))
    if not rows:
        return []
    k = max(int(key.partition("@")[2]) for key in rows[0][1])
    return [rows[0], *sorted(rows[1:], key=lambda row: -(row[1].get(f"ndcg@{k}") or 0.0))]


def label_rows(metrics: Metrics) -> list[tuple[str, dict[str, str]]]:
    """(metric as in bought/auc, its formatted value by scorer) of all labels."""
    keys = [key for key in next(iter(metrics.values())) if "/" in key]
    return [(key, {name: format_metric(row[key]) for name, row in metrics.items() if key in row}) for key in keys]


def format_metric(value: float | None) -> str:
    """Four decimals."""
    return UNDEFINED if value is None else f"{value:.4f}"


def describe_item_cases(facts: dict[str, Any]) -> str:
    """Facts of an evaluation -> on which cases items were ranked, and how, in a few sentences."""
    cases, left_out = facts["cases"], [(facts[key], why) for key, why in LEFT_OUT.items()]
    total = cases + sum(count for count, _ in left_out)
    share = cases / total if total else 0.0
    others = ", ".join(f"{count:,} {why}" for count, why in left_out if count)
    of_all = f" of {facts['vocabulary']:,} in the vocabulary" if facts["catalogue"] < facts["vocabulary"] else ""
    seen = f"{facts['seen_targets'] / cases if cases else 0.0:.1%} of these targets are in their session already"
    return (
        f"Last item of {cases:,} of {total:,} test sessions ({share:.1%}"
        + (f"; left out: {others}" if others else "")
        + f") ranked among all {facts['catalogue']:,} items that can be recommended{of_all}, {facts['ties']}. "
        + (f"Seen items filtered: {seen} and count as misses." if facts["filter_seen"] else f"Seen items kept: {seen}.")
        + (f" {describe_rules(facts)}" if facts.get("rules") else "")
    )


def describe_rules(facts: dict[str, Any]) -> str:
    """Facts of an evaluation under `serving.rules` -> which rules, what they forbid, what a rank is, metrics without."""
    rules, cases = facts["rules"], facts["cases"]
    names = ", ".join(rules["written"]) or "the item table"
    k = max(int(key.partition("@")[2]) for key in rules["without"])
    forbidden = (
        f"{rules['forbidden_targets']:,} of these targets ({rules['forbidden_targets'] / cases if cases else 0.0:.1%})"
    )
    sentences = [
        f"Under the rules of the dataset ({names}) {rules['catalogue']:,} items can be recommended: {forbidden} are forbidden "
        "and count as misses."
    ]
    if rules["rank"] == "list":
        sentences.append(f"A rank is the place in the final list; what is not among its {k} items is missed.")
    without = {name: format_metric(rules["without"][f"{name}@{k}"]) for name in ("recall", "ndcg")}
    sentences.append(
        f"Without rules the model has recall@{k} {without['recall']} and NDCG@{k} {without['ndcg']}. Baselines have no boost."
        if "boost" in rules["written"]
        else f"Without rules the model has recall@{k} {without['recall']} and NDCG@{k} {without['ndcg']}."
    )
    return " ".join(sentences)


def example_rows(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`examples.json` -> history and what came next in words, and the first `SHOWN` recommendations with the events that speak
    for each, most first: those without which its score falls, and the one event of a history that has no other.
    """
    return [
        {
            "history": [_in_history(item) for item in example["history"]],
            "next": example["next"],
            "recommended": [
                (item, [_in_history(event) for event, fall in events if fall is None or fall > 0])
                for item, events in zip(example["recommended"][:SHOWN], example["because"], strict=False)
            ],
        }
        for example in examples
    ]


def _in_history(item: Any) -> Any:
    return "(new)" if item is None else item


def evaluation_warnings(facts: dict[str, Any]) -> list[str]:
    """Facts of an evaluation -> what makes its metrics other than they seem."""
    warnings = []
    if facts["learned_from_test_day"]:
        warnings.append("The model learned from what it is tested on here: its metrics are too good.")
    if not facts["cases"] and item_rows(facts["metrics"]):
        warnings.append("No test session can be measured: the metrics of items are undefined.")
    return warnings


def describe_training(model: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """Facts of a model and of its evaluation -> which days trained, how long, and who and what is new on those tested on."""
    split, choice, sentences = evaluation.get("split") or {}, model.get("choice"), []
    if split.get("train") and split.get("test"):
        sentences.append(f"Trained on {_span(split['train'])}, tested on {_span(split['test'])}.")
    cold = [(split.get("cold_users"), "users"), (split.get("cold_items"), "hidden items")]
    new = [f"{count:,} of {split[f'test_{name.split()[-1]}']:,} {name}" for count, name in cold if count is not None]
    sentences += [f"New to training: {' and '.join(new)}."] if new else []
    if choice:
        days = _span([choice["days"][0], choice["days"][-1]])
        sentences.append(
            f"{choice['epochs']} of {choice['of_epochs']} epochs were best by {choice['goal']} on {days}, held out whole, "
            "with which the model was then trained again."
        )
    return " ".join(sentences)


def describe_refit(refit: dict[str, Any] | None) -> str:
    """Facts of a refitted model in service -> what it is; nothing where there is none."""
    if not refit:
        return ""
    days = (refit.get("split") or {}).get("test")
    tested = _span(days) if days else "the last items"
    return f"In service is {refit['name']}: {refit['refit_of']}, which was tested on {tested} here, trained again with that."


def tested_days(evaluation: dict[str, Any]) -> str:
    """Facts of an evaluation -> the days tested on; nothing where the test is not by days."""
    days = (evaluation.get("split") or {}).get("test")
    return _span(days) if days else ""


def _span(ends: list[str]) -> str:
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def describe_label_cases(facts: dict[str, Any]) -> str:
    """Facts of an evaluation -> on which cases each label was predicted, a sentence each."""
    return " ".join(
        f"{label}: {of['cases']:,} test {'sessions' if of['per'] == 'session' else 'events'} that have it, predicted from "
        f"the events before; its mean in training, {format_metric(of['training_mean'])}, is the baseline."
        for label, of in facts["labels"].items()
    )


def markdown_table(first: str, rows: list[tuple[str, dict[str, str]]]) -> list[str]:
    """(name, value by column) -> the lines of a Markdown table whose first column is called `first`."""
    if not rows:
        return []
    keys = list(rows[0][1])
    lines = ["", _line([first, *keys]), "|" + "---|" * (len(keys) + 1)]
    return lines + [_line([name, *(row.get(key, "") for key in keys)]) for name, row in rows]


def _line(cells: list[str]) -> str:
    """A row of a Markdown table; a bar within a cell does not end it."""
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
