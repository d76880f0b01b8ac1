"""Events that were set aside because a table lacked their item or user come in once the table has it."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from preprocessing.checks.known_values import KnownValues
from preprocessing.execution.run import Run
from preprocessing.history.changes import Changes
from preprocessing.history.ledger import Ledger, facts_of
from preprocessing.output.day import QUARANTINE
from schemas.columns import DAY, RULE


def days_to_do_again(run: Run, ledger: Ledger, changes: Changes) -> dict[date, str]:
    """Recent finished days some of whose events have an item or a user by now that they lacked, and why each is done again.

    Looked for when a table has changed, in as many days before the newest as the dataset says (`items.wait_days`). Of days
    that the source no longer holds, the run says what stays aside.
    """
    now = tuple(sorted(run.source.tables.values()))
    newest = ledger.days[DAY].max()
    if not isinstance(newest, date) or now == ledger.about.tables:
        return {}
    rules = {check.name: check for check in run.plan.rules.checks if isinstance(check, KnownValues) and check.table}
    wait = run.dataset.items.wait_days if run.dataset.items else 0
    recent = ledger.days.filter(pl.col(DAY) > newest - timedelta(days=wait))
    again: dict[date, str] = {}
    for row in recent.iter_rows(named=True):
        broken = [rule for rule in rules if facts_of(row)["quarantined"].get(rule)]
        for rule in broken:
            count = _known_by_now(run, row["artifact"], rule, rules[rule])
            if count and row[DAY] in changes.held:
                again[row[DAY]] = f"{count:,} events that broke {rule} are known by now"
            elif count:
                run.say(
                    f"{row[DAY]}: {count:,} events that broke {rule} are known by now, but the source no longer holds the day "
                    "whole: they stay in quarantine."
                )
    return again


def _known_by_now(run: Run, artifact: str, rule: str, check: KnownValues) -> int:
    """How many rows of a day's quarantine no longer break a rule."""
    try:
        bad = pl.read_parquet(run.artifacts.root / artifact / QUARANTINE, glob=False)
    except (OSError, pl.exceptions.PolarsError):
        return 0
    values = bad.filter(pl.col(RULE) == rule)[check.column].cast(pl.String)
    return int(values.is_in(check.good_values.cast(pl.String).implode()).sum())
