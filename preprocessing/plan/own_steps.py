"""Steps as they are called, those of other people among them: what they do wrong is said with their name and file."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import polars as pl

from preprocessing.steps import NEEDED, Step, refuse_name
from preprocessing.steps import __name__ as built_in
from schemas.errors import InputError


def apply_through(name: str, step: Step, events: pl.LazyFrame) -> pl.LazyFrame:
    """The events after `step.apply`.

    Raises:
        InputError: with the step's name and file, when a step of other people fails, gives no LazyFrame, takes a needed column
            away or adds one whose name is taken.
    """
    return _through(name, step, step.apply, events)


def read_through(name: str, step: Step, events: pl.LazyFrame, *, count: bool = False) -> pl.LazyFrame:
    """The events after `step.read`; `count`: read them once more to see that a step of other people keeps their number.

    Raises:
        InputError: as `apply_through`, and when rows are dropped or added.
    """
    if type(step).read is Step.read:
        return events
    read = _through(name, step, step.read, events)
    if count and not is_built_in(step):
        before, after = (_count(frame) for frame in (events, read))
        if before != after:
            raise InputError(
                f"{_called(name, step)}: read made {after:,} rows of {before:,}; it may only change or add columns. Drop rows "
                "in apply, where they are counted."
            )
    return read


def _through(
    name: str, step: Step, function: Callable[[pl.LazyFrame], pl.LazyFrame], events: pl.LazyFrame
) -> pl.LazyFrame:
    if is_built_in(step):
        return function(events)
    where = f"{_called(name, step)}: {function.__name__}"
    columns = events.collect_schema()
    try:
        result = function(events)
        schema = result.collect_schema() if isinstance(result, pl.LazyFrame) else None
    except InputError:
        raise
    except Exception as error:  # whatever other people's code raises
        raise InputError(f"{where} failed with {type(error).__name__}: {error}") from error
    if schema is None:
        raise InputError(f"{where} returned a {type(result).__name__}; it must return the events as a pl.LazyFrame.")
    lost = [column for column in NEEDED if column in columns and column not in schema]
    if lost:
        raise InputError(f"{where} took the column {lost[0]!r} away, which every dataset needs; return it unchanged.")
    for column in schema:
        if column not in columns:
            refuse_name(where, column)
    return result


def is_built_in(step: Step) -> bool:
    """Whether a step is Overnight's, not of other people."""
    return type(step).__module__.startswith(f"{built_in}.")


def _called(name: str, step: Step) -> str:
    return f"step {name} ({inspect.getsourcefile(type(step)) or type(step).__module__})"


def _count(events: pl.LazyFrame) -> int:
    return int(events.select(pl.len()).collect(engine="streaming").item())
