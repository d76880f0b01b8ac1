"""The plan that cleans a bucket: raw rows -> checked, in order, without duplicates, cut, through steps -> kept rows by day.

All outputs are plans over the same rows, which are collected together: one trip to a GPU, and on the CPU nothing is done twice.
Where the plan finds that rows tie in all that orders them, it is made and run once more, with rows ordered by all columns.

    kept         rows by day, session and time, with `day` and `session_index`
    open         events of sessions that close on a later day than the event's
    quarantine   bad rows, with their `rule`
    counts       `stage`, `day`, `count`: rows before and after what may drop some
    nulled       good rows that lost a value, by `day` and `rule`
    ties         whether any rows tied
    early-NAME   statistics of encoders that see open sessions, too
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from itertools import takewhile

import polars as pl

from preprocessing.account import CUT, DUPLICATES, SHORT
from preprocessing.encoders.item_age import ItemAge
from preprocessing.execution.flow import Drop, Flow
from preprocessing.execution.ordering import KEY, LAST, Packing, codes_of, packing_of
from preprocessing.execution.places import CODE, Places, by_day
from preprocessing.features.feature import FittedFeature
from preprocessing.features.plans import fit_plans
from preprocessing.frames import CPU, Rows, Target, collect, collect_and_keep, to_host
from preprocessing.plan import Plan
from preprocessing.plan.own_steps import apply_through, is_built_in
from preprocessing.plan.rules import RULE_CODE
from preprocessing.sessions import (
    EVENT_DAY,
    SESSION_INDEX,
    close,
    cut,
    differs,
    has_ties,
    long_enough,
    recent,
    sort_keys,
)
from preprocessing.steps import Step
from schemas.columns import DAY, END, ITEM_ID, POSITION, TIMESTAMP, USER_ID
from schemas.dataset import Dataset

KEPT_ROWS, OPEN, QUARANTINE, COUNTS, NULLED_ROWS, TIES = "kept", "open", "quarantine", "counts", "nulled", "ties"
EARLY, EARLY_ROWS = "early-", "early"
PLACE = "place"  # of a row, while a step runs that may change the order


@dataclass(frozen=True)
class Cleaning:
    """What cleans a bucket."""

    dataset: Dataset
    plan: Plan
    last: date
    now: datetime
    raw: Rows
    carried: pl.DataFrame | None
    marked: pl.DataFrame | None
    """On a CPU: the raw rows, marked by rules."""
    packing: Packing | None

    @classmethod
    def of(
        cls, dataset: Dataset, plan: Plan, last: date, now: datetime, raw: Rows, carried: pl.DataFrame | None,
        pack: bool,
    ) -> Cleaning:  # fmt: skip
        """`pack`: order rows by one integer where that can be; on a CPU, where several plans cost no more than one."""
        cleaning = cls(dataset, plan, last, now, raw, carried, None, None)
        if not pack:
            return cleaning
        cleaning = replace(cleaning, marked=collect(plan.rules.mark(raw.lazy(), now)))
        return replace(cleaning, packing=cleaning._packing())

    def run(self, target: Target) -> tuple[dict[str, pl.DataFrame], Rows, list[Drop]]:
        """All outputs by name but the kept rows; these, which stay where the plans run; what may drop rows, in order."""
        places = self._places()
        # A GPU looks at a further column only where all before it are equal: to sort by all at once costs it next to nothing.
        made, kept, drops = self._collect(places, target, ties=places is None and target != CPU)
        if TIES in made and made[TIES].item():
            made, kept, drops = self._collect(None, target, ties=True)
        return made, kept, drops

    def _collect(
        self, places: Places | None, target: Target, *, ties: bool
    ) -> tuple[dict[str, pl.DataFrame], Rows, list[Drop]]:
        plans, drops = self.outputs(places, ties=ties)
        last = plans.pop(KEPT_ROWS)
        frames, kept = collect_and_keep(list(plans.values()), last, target)
        made = dict(zip(plans, frames, strict=True))
        if places:
            kept = to_host(kept)
            if self.dataset.split == "day":
                kept = by_day(kept, DAY)
            kept, made[OPEN] = places.widen(kept).drop(EVENT_DAY, strict=False), places.widen(made[OPEN])
        return made, kept, drops

    def outputs(self, places: Places | None = None, *, ties: bool) -> tuple[dict[str, pl.LazyFrame], list[Drop]]:
        """The plans by name, and what may drop rows, in order; `ties`: whether rows tie in what orders them.

        With `places`, those of rows that are in order already.
        """
        rules = self.plan.rules
        marked = rules.mark(self.raw.lazy(), self.now).cache() if self.marked is None else self.marked.lazy()
        outputs = {QUARANTINE: rules.as_found(marked.filter(pl.col(RULE_CODE) > 0))}
        if any(check.keeps_rows for check in rules.checks):
            outputs[NULLED_ROWS] = rules.nulled(marked, self.now, EVENT_DAY)
        if places is not None:
            flow, fitted_to = self._in_place(places)
        else:
            flow, packing = self._good(marked)
            if (found := order(flow, self.dataset, packing, ties=ties, lists=self.marked is not None)) is not None:
                outputs[TIES] = found
            fitted_to = flow.rows
        early = self.early()
        outputs |= {f"{EARLY}{one.name}": plan for one, plan in zip(early, fit_plans(fitted_to, early), strict=True)}
        if wanted := self._early_columns() & set(flow.rows.collect_schema()):
            outputs[EARLY_ROWS] = flow.rows.select(sorted(wanted))
        flow.change(close(cut(flow.rows, self.dataset), self.dataset), DAY)
        outputs[OPEN] = flow.rows.filter(pl.col(EVENT_DAY) < pl.col(DAY)).drop(SESSION_INDEX, END)
        if places is not None:
            flow.rows = places.drop(flow.rows, self._steps_look_at(places.rows))
        self._sessions(flow)
        outputs[COUNTS] = pl.concat(flow.counts)
        outputs[KEPT_ROWS] = flow.rows
        if places is None:
            kept = flow.rows.drop(EVENT_DAY)
            # Moving events by day now costs less than statistics by day and moving sessions do later.
            outputs[KEPT_ROWS] = kept.sort(DAY, maintain_order=True) if self.dataset.split == "day" else kept
        return outputs, flow.drops

    def _places(self) -> Places | None:
        """The order of rows, where all that may come before it are rules."""
        if self.marked is None or self.plan.row_steps:
            return None
        keys = sort_keys(self.dataset, self.marked.columns)
        who = takewhile(lambda name: name not in (TIMESTAMP, POSITION), keys[:-1])
        texts = [] if self.packing else [name for name in who if self.marked.schema[name] == pl.String]
        if self.packing is None and not texts:
            return None
        rows = self.plan.rules.without_private(self.marked.lazy(), code=True).collect()
        if self.carried is not None and self.carried.height:
            carried = self.carried.lazy().with_columns(pl.lit(0, dtype=pl.Int32).alias(RULE_CODE)).select(rows.columns)
            rows = collect(pl.concat([rows.lazy(), carried], how="vertical_relaxed"))
        rest, packing = _rest(rows.schema, keys, lists=True), self.packing
        if texts:
            rows = rows.with_columns(codes_of(rows[name]).alias(f"{CODE}{name}") for name in texts)
            coded = [f"{CODE}{name}" if name in texts else name for name in keys]
            packing = packing_of(rows.lazy().filter(pl.col(RULE_CODE) == 0).select(coded), coded)
        return Places.of(rows, packing, rest, drop=self.dataset.duplicates == "drop") if packing else None

    def _in_place(self, places: Places) -> tuple[Flow, pl.DataFrame | pl.LazyFrame]:
        """Rows in order, without duplicates, of the columns that are looked at before sessions are those that are kept.

        They come as a flow and, as far as they are there, as a frame.
        """
        rows = places.narrow(self._looked_at(places.rows))
        flow = Flow(rows.lazy(), eager=True)
        if self.dataset.duplicates == "drop":
            flow.dropped(DUPLICATES, places.rows.select(EVENT_DAY)[places.duplicates])
            return flow, rows
        drop_duplicates(flow, self.dataset)
        return flow, flow.rows

    def _looked_at(self, rows: pl.DataFrame) -> set[str]:
        """The columns that cleaning needs: all, unless steps are filters alone, and no encoder of further ones is fitted."""
        looked_at = {*sort_keys(self.dataset, rows.columns), EVENT_DAY, *self._steps_look_at(rows)}
        if isinstance(self.dataset.duplicates, tuple):
            looked_at.update(self.dataset.duplicates)
        for one in self.early():
            encoder = one.next_to_fit
            if not isinstance(encoder, ItemAge) or self._early_columns():
                return set(rows.columns)
            looked_at.update((one.feature.column, ITEM_ID))
        return looked_at

    def _steps_look_at(self, rows: pl.DataFrame) -> set[str]:
        """The columns that steps need which look at sessions: all, unless there is one alone, a filter."""
        steps = self.plan.session_steps
        if not steps:
            return set()
        kept = steps[0][1].keeps() if len(steps) == 1 and is_built_in(steps[0][1]) else None
        return set(rows.columns) if kept is None else set(kept.meta.root_names())

    def early(self) -> list[FittedFeature]:
        """The features whose first encoder to be fitted sees open sessions, too."""
        fitted = map(FittedFeature, self.plan.features)
        return [one for one in fitted if one.next_to_fit and not one.next_to_fit.by_day]

    def _early_columns(self) -> set[str]:
        """What later encoders need that see open sessions, too: hardly ever anything."""
        chains = {
            feature.column
            for feature in self.plan.features
            if sum(encoder.fits != "nothing" and not encoder.by_day for encoder in feature.encoders) > 1
        }
        return chains | {ITEM_ID} if chains else chains

    def _packing(self) -> Packing | None:
        """How keys fit into one integer: those of rows that no rule refuses for what they are by themselves."""
        keys = sort_keys(self.dataset, self.raw.columns)
        if len(keys) < 2 or not all(is_built_in(step) for _, step in self.plan.row_steps):
            return None
        assert self.marked is not None
        good = self.marked.lazy().select(*keys, RULE_CODE)
        if (self.marked[RULE_CODE] > 0).any():
            good = good.filter(pl.col(RULE_CODE) == 0)
        good = good.select(keys)
        if self.carried is not None and self.carried.height:
            good = pl.concat([good, self.carried.lazy().select(keys)], how="vertical_relaxed")
        return packing_of(good, keys)

    def _good(self, marked: pl.LazyFrame) -> tuple[Flow, Packing | None]:
        """Good rows through the steps before sessions are cut, the events that were open before, and how to order them.

        Without such steps, rows that are packed keep the bad ones, marked, among them: these go with duplicates, in one go.
        """
        rules, steps, packing = self.plan.rules, self.plan.row_steps, self.packing
        late = packing is not None and not steps
        good = rules.without_private(marked if late else marked.filter(pl.col(RULE_CODE) == 0), code=late)
        flow = Flow(good)
        for name, step in steps:
            flow.through(name, partial(apply_through, name, step))
        columns = flow.rows.collect_schema().names()
        if packing is not None and packing.names != sort_keys(self.dataset, columns):
            packing = None  # a step has taken a key away
        if self.carried is not None and self.carried.height:
            carried = self.carried.lazy()
            if late:
                carried = carried.with_columns(pl.lit(0, dtype=pl.Int32).alias(RULE_CODE))
            flow.change(pl.concat([flow.rows, carried.select(columns)], how="vertical_relaxed"), EVENT_DAY)
        return flow, packing

    def _sessions(self, flow: Flow) -> None:
        """Sessions that close within the batch through the steps that need sessions; long enough; their last events."""
        closed, steps = pl.col(DAY) <= self.last, list(self.plan.session_steps)
        filters: dict[str, pl.Expr] = {}
        if steps and is_built_in(steps[0][1]) and (kept := steps[0][1].keeps()) is not None:
            filters[steps.pop(0)[0]] = kept
        flow.keep(filters, closed)
        for name, step in steps:
            flow.through(name, _in_order(name, step))
        rule = self.dataset.sessions
        flow.keep({SHORT: long_enough(rule.min_length), CUT: recent(rule.max_length)})


def order(
    flow: Flow, dataset: Dataset, packing: Packing | None, *, ties: bool, lists: bool = True
) -> pl.LazyFrame | None:
    """Put rows in order, of those that are the same the first; returns a plan for whether rows tie, one value.

    Rows tie that agree in all that orders them and differ in other columns: with `ties`, these order them too, with `lists`
    those that hold lists among them, which a GPU does not compare. Bad rows, if there are any, are marked by RULE_CODE, come
    last and are dropped.
    """
    schema = flow.rows.collect_schema()
    good = pl.col(RULE_CODE) == 0 if RULE_CODE in schema else None
    keys = sort_keys(dataset, schema)
    rest = _rest(schema, keys, lists=lists)
    if packing is not None:
        key = packing.key() if good is None else pl.when(good).then(packing.key()).otherwise(LAST)
        flow.rows, keys = flow.rows.with_columns(key.alias(KEY)), [KEY, *packing.left]
    flow.rows = flow.rows.sort([*keys, *rest] if ties else keys).cache()
    tied = None if ties or not rest else has_ties(flow.rows, keys, rest, good)
    drop = tuple(name for name in (KEY, RULE_CODE) if name in (*keys, *schema))
    compared = [*keys, *(name for name in rest if name != EVENT_DAY)] if ties else keys
    if dataset.duplicates == "drop":
        flow.keep({DUPLICATES: differs(compared)}, good, drop)
        return tied
    if drop:
        flow.keep({}, good, drop)
    drop_duplicates(flow, dataset)
    return tied


def _rest(schema: pl.Schema, keys: list[str], *, lists: bool) -> list[str]:
    """The columns that order rows which agree in all keys."""
    return [
        name for name, dtype in schema.items() if name not in (*keys, RULE_CODE) and (lists or not dtype.is_nested())
    ]


def drop_duplicates(flow: Flow, dataset: Dataset) -> None:
    """Of rows in order that agree in the columns that the dataset names, keep the first."""
    if isinstance(dataset.duplicates, tuple):
        same = list(dict.fromkeys((USER_ID, EVENT_DAY, *dataset.duplicates)))
        flow.through(DUPLICATES, lambda rows: rows.unique(same, keep="first", maintain_order=True))


def _in_order(name: str, step: Step) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """A step that leaves rows in order of session and time, also where it was not made for that."""
    if step.needs_sessions:
        return partial(apply_through, name, step)

    def apply(rows: pl.LazyFrame) -> pl.LazyFrame:
        return apply_through(name, step, rows.with_row_index(PLACE)).sort(PLACE).drop(PLACE)

    return apply
