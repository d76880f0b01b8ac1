"""Steps that change columns: derived, renamed, dropped, anonymous; and the sample, which is drawn as events are read."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.plan import build_steps
from preprocessing.plan.rules import Rules
from preprocessing.source.events import as_found, read_events
from preprocessing.steps import Step
from schemas.errors import InputError
from tests.preprocessing.small import NOW, at, dataset_of, run, three_days, write

KEY = "a secret of more than sixteen bytes"
PRICED = pl.LazyFrame({"price": [2.0, None], "quantity": [3, 4]})


def step_of(entry: Any, **parts: Any) -> Step:
    ((_, step),) = build_steps(dataset_of("there", steps=[entry], **parts))
    return step


def test_derive_in_order() -> None:
    columns = {"revenue": "price * quantity", "dear": "COALESCE(revenue > 5, FALSE)"}
    derived = step_of({"derive": {"columns": columns}}).apply(PRICED).collect()
    assert derived["revenue"].to_list() == [6.0, None]
    assert derived["dear"].to_list() == [True, False]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"revenue": "prise * quantity"}, "Did you mean 'price'"),
        ({"price": "price * 2"}, "step derive: the events have a column 'price' already"),
        ({"when": "EXTRACT(day FROM price)"}, "step derive: when: 'EXTRACT(day FROM price)' fails"),
    ],
)
def test_derive_is_checked_before_rows_are_seen(columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as error:
        step_of({"derive": {"columns": columns}}).apply(pl.LazyFrame(schema=PRICED.collect_schema()))
    assert message in str(error.value)


def test_rename_and_drop_columns() -> None:
    renamed = step_of({"rename": {"columns": {"price": "cost"}}}).apply(PRICED)
    assert renamed.collect_schema().names() == ["cost", "quantity"]
    dropped = step_of({"drop_columns": {"columns": ["price"]}}).apply(PRICED)
    assert dropped.collect_schema().names() == ["quantity"]
    with pytest.raises(InputError, match="step rename: Unknown column 'prise'"):
        step_of({"rename": {"columns": {"prise": "cost"}}}).apply(PRICED)
    with pytest.raises(InputError, match="step rename: the events have a column 'quantity' already"):
        step_of({"rename": {"columns": {"price": "quantity"}}}).apply(PRICED)
    with pytest.raises(InputError, match="step drop_columns: Unknown column 'prise'"):
        step_of({"drop_columns": {"columns": ["prise"]}}).apply(PRICED)


def test_a_sample_of_users_is_the_same_ever_after() -> None:
    events = pl.LazyFrame({"user_id": [f"user {number // 2}" for number in range(2_000)]})

    def sample(**options: Any) -> list[str]:
        step = step_of({"sample_users": options})
        kept = step.apply(step.read(events)).collect()
        assert kept.columns == ["user_id"]
        return kept["user_id"].to_list()

    tenth, fifth = sample(share=0.1), sample(share=0.2)
    assert 160 < len(tenth) < 240 and len(tenth) == 2 * len(set(tenth))
    assert set(tenth) < set(fifth)
    assert tenth[:6:2] == ["user 6", "user 30", "user 52"]
    assert set(sample(share=0.1, seed=1)) != set(tenth)


def token(value: object, key: str = KEY) -> str:
    return blake2b(str(value).encode(), key=key.encode(), digest_size=16).hexdigest()


def test_anonymise_ids_also_those_as_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_ANONYMISE_KEY", KEY)
    write(tmp_path, [("7", 1, at(0)), ("ann", 1, at(0)), (None, 1, at(0))])
    dataset = dataset_of(tmp_path, events={"id_type": "integer"}, steps=[{"anonymise": {"columns": ["user_id"]}}])
    ((_, step),) = build_steps(dataset)
    events = step.read(read_events(dataset))
    assert events.select("user_id", as_found("user_id")).collect().rows() == [
        (token(7), token("7")),
        (None, token("ann")),
        (None, None),
    ]
    rules = Rules.of(dataset, events.collect_schema())
    bad = rules.as_found(rules.mark(events, NOW).filter(pl.col("rule code") > 0)).collect()
    assert set(bad.select("user_id", "rule").rows()) == {
        (token("ann"), "user_id_unparsable"),
        (None, "user_id_null"),
    }


def test_raw_ids_are_nowhere_in_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_ANONYMISE_KEY", KEY)
    write(tmp_path, [*three_days(), ("b", None, at(1))])
    manifest = run(tmp_path, dataset_of(tmp_path, steps=[{"anonymise": {"columns": ["user_id"]}}]))
    assert manifest.facts["quarantined"] == {"item_id_null": 1}
    files = [pl.read_parquet(file, hive_partitioning=False) for file in tmp_path.glob("artifacts/**/*.parquet")]
    ids = {user for file in files if "user_id" in file for user in file["user_id"]}
    assert ids == {token("a"), token("b")}


def test_a_session_id_that_stands_for_the_user_is_anonymous_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_ANONYMISE_KEY", KEY)
    columns = {"session_id": "s", "item_id": "i", "timestamp": "t"}
    step = step_of({"anonymise": {"columns": ["session_id"]}}, columns=columns, sessions={"rule": "given"})
    events = step.read(pl.LazyFrame({"user_id": [7], "session_id": [7], "item_id": [7]})).collect()
    assert events.rows() == [(token(7), token(7), 7)]


@pytest.mark.parametrize("key", [None, "fifteen bytes.."])
def test_anonymise_needs_a_key_and_never_tells_it(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_KEY", raising=False)
    if key:
        monkeypatch.setenv("SHOP_KEY", key)
    with pytest.raises(InputError, match="variable SHOP_KEY must hold a secret of 16 bytes or more") as error:
        step_of({"anonymise": {"columns": ["user_id"], "key_variable": "SHOP_KEY"}})
    assert key is None or key not in str(error.value)


def test_long_keys_count_in_full_and_no_key_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = set()
    for last in "ab":
        monkeypatch.setenv("OVERNIGHT_ANONYMISE_KEY", 99 * "k" + last)
        step = step_of({"anonymise": {"columns": ["user_id"]}})
        tokens.add(step.read(pl.LazyFrame({"user_id": ["ann"]})).collect().item())
        assert "kkk" not in repr(step) + str(step.model_dump())
    assert len(tokens) == 2
