"""Encode raw values of events and items with what a model folder holds: its vocabularies and the numbers in its schema.

These are the encoders of preparation that need no more than that, value by value the same. The rest is refused by name: what
they were fit to is a table that stays with the prepared days (`popularity`, `item_age`, `target_encoding`, `relative_price`),
or they are somebody's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from modeling.service.values import TIME, as_type
from modeling.vocabularies import read_table
from schemas.columns import FIRST_ID, ID, NULL, UNKNOWN, VALUE
from schemas.errors import InputError
from schemas.features import EncoderUsed, FeatureColumn
from schemas.hashing import hash_value

DAY_SECONDS = 86_400
PERIODS = {"hour": DAY_SECONDS, "weekday": 7 * DAY_SECONDS, "day_of_year": 365.25 * DAY_SECONDS}


@dataclass(frozen=True)
class Moments:
    """When events happened and whose they are, in order: for encoders that look beyond the value."""

    timestamp: pl.Series | None = None
    session: pl.Series | None = None


class Vocabularies:
    """The id maps of a model folder, each read when it is asked for first and held from then on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, pl.DataFrame] = {}

    def of(self, column: FeatureColumn) -> pl.DataFrame:
        """The id map of a feature: raw values and their ids."""
        assert column.vocabulary
        if column.vocabulary not in self._read:
            self._read[column.vocabulary] = read_table(self.folder / column.vocabulary).drop_nulls(ID)
        return self._read[column.vocabulary]


Encode = Callable[[pl.Series, EncoderUsed, Moments], pl.Series]


def why_not(column: FeatureColumn, moments: Moments) -> str:
    """Why a feature cannot be encoded here; empty where it can."""
    for encoder in _chain(column):
        if encoder.name not in ("category", *ENCODE):
            return f"{encoder.name} needs what is not in the model folder"
        if encoder.name in ("elapsed", "event_age") and moments.session is None:
            return f"{encoder.name} needs a session"
        if encoder.name == "age" and moments.timestamp is None:
            return "age needs the times of events"
        if column.encoders is None and encoder.name in WITH_OPTIONS:
            return f"the model's older schema.json does not say with which options of {encoder.name} it is made"
    return "" if column.vocabulary or "category" not in column.transform else "it has no vocabulary"


def encoded(
    raw: pl.Series, column: FeatureColumn, vocabularies: Vocabularies, what: str, moments: Moments | None = None
) -> pl.Series:
    """Raw values as the feature holds them; numbers that are not finite become null.

    Raises:
        InputError: for values of another type, and features that cannot be encoded here.
    """
    moments = moments or Moments()
    if reason := why_not(column, moments):
        possible = ", ".join(["category", *sorted(ENCODE)])
        raise InputError(
            f"Feature {column.name!r} of {what} cannot be made: it is made by {' then '.join(column.transform)}, and {reason}. "
            f"What can be encoded: {possible}."
        )
    values = typed(raw, column, vocabularies, what)
    if column.vocabulary:
        return _ids(values, column, vocabularies.of(column))
    for encoder in _chain(column):
        values = ENCODE[encoder.name](values, encoder, moments)
    if column.kind == "categorical":
        return values.cast(pl.Int32)
    values = values.cast(pl.Float64)
    return values.set(~values.is_finite().fill_null(True), None)


def typed(raw: pl.Series, column: FeatureColumn, vocabularies: Vocabularies, what: str, zone: str = "UTC") -> pl.Series:
    """Raw values as the type that the feature's first encoder takes; `zone` is that of times written without one.

    Raises:
        InputError: for the first value that does not fit, with its row.
    """
    raw = raw.fill_nan(None) if raw.dtype.is_float() else raw
    if not column.vocabulary:
        return as_type(raw, _raw_type(column), what, zone)
    dtype = vocabularies.of(column).schema[VALUE]
    return as_type(raw, pl.List(dtype) if column.many else dtype, what)


def _chain(column: FeatureColumn) -> tuple[EncoderUsed, ...]:
    """The encoders; of an older schema, with the one scale that it holds."""
    if column.encoders is not None:
        return column.encoders
    scale: dict[str, float | tuple[float, ...]] = {"mean": column.mean, "std": column.std}
    return tuple(EncoderUsed(name=name, fitted=scale if name == "standardize" else {}) for name in column.transform)


def _raw_type(column: FeatureColumn) -> pl.DataType | type[pl.DataType]:
    first = _chain(column)[0].name if _chain(column) else ""
    if first in ("hour", "weekday", "cyclic", "elapsed", "event_age"):
        return TIME
    return {"text_length": pl.String, "age": pl.Date}.get(first, pl.Float64)


def _ids(raw: pl.Series, column: FeatureColumn, vocabulary: pl.DataFrame) -> pl.Series:
    """Null becomes 1, what is not in the vocabulary unknown; of lists, a list of nulls is empty."""
    value = pl.element() if column.many else pl.col(raw.name)
    ids = value.replace_strict(vocabulary[VALUE], vocabulary[ID], default=None, return_dtype=pl.Int32)
    unknown = value.map_batches(lambda values: _unknown(values, column), return_dtype=pl.Int32, is_elementwise=True)
    ids = pl.when(value.is_null()).then(pl.lit(NULL, dtype=pl.Int32)).otherwise(pl.coalesce(ids, unknown))
    if not column.many:
        return raw.to_frame().select(ids).to_series()
    several = pl.col(raw.name).list
    return raw.to_frame().select(pl.when(several.drop_nulls().list.len() > 0).then(several.eval(ids))).to_series()


def _unknown(values: pl.Series, column: FeatureColumn) -> pl.Series:
    """The id of each value if it is unknown: there may be several such ids, chosen by a hash."""
    buckets = next((int(e.options.get("unknown_buckets", 1)) for e in _chain(column) if e.name == "category"), 1)
    if buckets == 1:
        return pl.Series(values.name, [UNKNOWN] * len(values), dtype=pl.Int32)
    ids = [None if value is None else UNKNOWN + hash_value(value) % buckets for value in values]
    return pl.Series(values.name, ids, dtype=pl.Int32)


def _standardize(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    return (x - encoder.fitted.get("mean", 0.0)) / encoder.fitted.get("std", 1.0)


def _min_max(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    if not encoder.fitted:
        return pl.Series(x.name, [None] * len(x), dtype=pl.Float64)
    low, high = float(encoder.fitted["min"]), float(encoder.fitted["max"])  # type: ignore[arg-type]
    if high > low:
        return (x - low) / (high - low)
    return (x * 0 + 0.5).set(x == 0, None)


def _clip(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    return x.clip(encoder.options["min"], encoder.options["max"])


def _fill(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    x = _finite(x)
    return x.fill_null(float(encoder.fitted["value"])) if encoder.fitted else x  # type: ignore[arg-type]


def _bucketize(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    number = _finite(x)
    return _count(number, [number >= boundary for boundary in encoder.options["boundaries"]])


def _quantile(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    boundaries = encoder.fitted["boundaries"]
    assert isinstance(boundaries, tuple)
    number = _finite(x)
    return _count(number, [number > boundary for boundary in boundaries])


def _count(number: pl.Series, passed: list[pl.Series]) -> pl.Series:
    """3 + how many boundaries a number passes; 1 where there is no number."""
    ids = pl.Series(number.name, [FIRST_ID] * len(number), dtype=pl.Int32)
    for is_passed in passed:
        ids = ids + is_passed.fill_null(False).cast(pl.Int32)
    return ids.set(number.is_null(), NULL)


def _hour(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    return (_local(x, encoder).dt.hour().cast(pl.Int32) + FIRST_ID).fill_null(NULL)


def _weekday(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    return (_local(x, encoder).dt.weekday().cast(pl.Int32) + (FIRST_ID - 1)).fill_null(NULL)


def _cyclic(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    period, part = encoder.options["period"], encoder.options["part"]
    if isinstance(period, int | float):
        seconds, period = x.dt.epoch("us") % round(period * 1e6) / 1e6, float(period)
    else:
        local = _local(x, encoder)
        clock = (local.dt.hour().cast(pl.Int32), local.dt.minute().cast(pl.Int32), local.dt.second().cast(pl.Int32))
        days = {
            "hour": clock[0] * 0,
            "weekday": local.dt.weekday().cast(pl.Int32) - 1,
            "day_of_year": local.dt.ordinal_day().cast(pl.Int32) - 1,
        }
        seconds = days[period] * DAY_SECONDS + clock[0] * 3_600 + clock[1] * 60 + clock[2]
        period = PERIODS[period]
    angle = seconds * (2 * math.pi / period)
    return angle.sin() if part == "sin" else angle.cos()


def _elapsed(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    assert moments.session is not None
    seconds = (x - x.shift(1)).dt.total_microseconds() / 1e6
    return seconds.set(moments.session.ne_missing(moments.session.shift(1)), 0.0)


def _event_age(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    assert moments.session is not None
    start = pl.DataFrame({"x": x, "session": moments.session}).select(pl.col("x").first().over("session")).to_series()
    return (x - start).dt.total_seconds() / 3600


def _age(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    assert moments.timestamp is not None
    return (_local(moments.timestamp, encoder).dt.date() - x).dt.total_days().clip(0, None)


def _log1p(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    return x.log1p()


def _text_length(x: pl.Series, encoder: EncoderUsed, moments: Moments) -> pl.Series:
    return x.str.len_chars()


def _local(x: pl.Series, encoder: EncoderUsed) -> pl.Series:
    return x.dt.convert_time_zone(encoder.options["time_zone"])


def _finite(x: pl.Series) -> pl.Series:
    x = x.cast(pl.Float64)
    return x.set(~x.is_finite().fill_null(True), None)


ENCODE: dict[str, Encode] = {
    "age": _age,
    "bucketize": _bucketize,
    "clip": _clip,
    "cyclic": _cyclic,
    "elapsed": _elapsed,
    "event_age": _event_age,
    "fill": _fill,
    "hour": _hour,
    "log1p": _log1p,
    "min_max": _min_max,
    "quantile": _quantile,
    "standardize": _standardize,
    "text_length": _text_length,
    "weekday": _weekday,
}
WITH_OPTIONS = {"age", "bucketize", "clip", "cyclic", "fill", "hour", "min_max", "quantile", "weekday"}
