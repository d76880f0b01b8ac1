"""`serving.rules` of a dataset, compiled: expressions and files become a table of items, again when a file has changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from flows.raw_tables import read_table
from modeling.service.rules import BOOST, ELIGIBLE, GROUP, ITEM, NEW, Rules
from preprocessing.source.files import find_files
from preprocessing.source.lookups import read_items
from preprocessing.sql import read_sql, type_on
from schemas.columns import ITEM_ID, VALID_FROM
from schemas.dataset import Dataset, load_dataset
from schemas.errors import InputError, reason, unknown
from schemas.features import FeatureSchema
from schemas.serving import Rules as Written

KEY = "serving.rules"


@dataclass
class RuleReader:
    """The rules of a dataset whose files are where `dataset.source` says."""

    dataset: Dataset
    _stamps_read: tuple[Any, ...] | None = None

    def read(self) -> Rules | None:
        """The rules as they are now; None where no file has changed since the last time.

        Raises:
            InputError: for expressions that do not fit the item table, and files that cannot be read.
        """
        stamps = self.stamps()
        if stamps == self._stamps_read:
            return None
        rows = read_items(self.dataset).collect() if needs_items(self.dataset) and self.dataset.items else None
        rules = _compiled(self.dataset, self.dataset.serving.rules, rows)
        self._stamps_read = stamps
        return rules

    def stamps(self) -> tuple[Any, ...]:
        """Each file that the rules look at, with its size and the time it was written."""
        rules, items = self.dataset.serving.rules, self.dataset.items
        files = [rules.allow, rules.deny, rules.stock.path if rules.stock else None]
        stamps: list[Any] = [_stamp(_place(self.dataset, file)) for file in files if isinstance(file, str)]
        if items and needs_items(self.dataset):
            stamps += find_files(self.dataset, items.path, "items.path", items.file_options)
        return tuple(stamps)


def reader_of(dataset: Dataset, source: str | None) -> RuleReader | None:
    """What reads a dataset's rules; None where it has none.

    Raises:
        InputError: for rules of a dataset whose files are nobody knows where.
    """
    rules = dataset.serving.rules
    files = rules.stock or isinstance(rules.allow, str) or isinstance(rules.deny, str)
    if rules == Written() and not needs_items(dataset):
        return None
    if not files and not needs_items(dataset):
        return RuleReader(dataset)
    try:
        return RuleReader(dataset.at(source))
    except InputError:
        if rules == Written():
            return None  # nobody asked for rules; the item table is looked at where it can be found
        raise InputError(
            f"{KEY} of {dataset.name!r} look at files of its source, and nobody says where that is: give --source, set "
            "$OVERNIGHT_SOURCE, or write `source:` into the YAML."
        ) from None


def dataset_of(folder: Path) -> str:
    """The dataset of a model folder."""
    return FeatureSchema.read(folder / "schema.json").dataset


def rules_of(dataset: str, of_model: str) -> Rules | None:
    """The rules of a dataset as they are now; None where it has none, or the model is of another dataset.

    Raises:
        InputError: for rules that cannot be read.
    """
    try:
        loaded = load_dataset(dataset)
    except InputError:
        if Path(dataset).suffix in (".yaml", ".yml"):
            raise
        return None  # a model's dataset may be described elsewhere
    reader = reader_of(loaded, None) if loaded.name == of_model else None
    return reader.read() if reader else None


def rules_of_evaluation(dataset: Dataset) -> Rules:
    """The rules that an evaluation keeps where `evaluation.rules` asks for it, as they are now.

    Raises:
        InputError: where there are none, and for rules that cannot be read.
    """
    reader = reader_of(dataset, dataset.source or None)
    rules = reader.read() if reader else None
    if rules is None:
        raise InputError(
            f"evaluation.rules is true, and {dataset.name!r} has no rules: write them into its YAML ({KEY}), or leave "
            "evaluation.rules out."
        )
    return rules


def needs_items(dataset: Dataset) -> bool:
    """Whether the item table says what may be recommended."""
    return _listed_only(dataset) or dataset.serving.rules.of_columns


def _listed_only(dataset: Dataset) -> bool:
    chosen = dataset.serving.rules.catalogue
    if chosen and dataset.items is None:
        raise InputError(f"{KEY}.catalogue: the dataset has no item table. Add `items`, or leave it out.")
    return bool(dataset.items and (dataset.items.unknown == "quarantine" if chosen is None else chosen))


def _compiled(dataset: Dataset, rules: Written, rows: pl.DataFrame | None) -> Rules:
    table = _of_columns(dataset, rules, rows)
    unlisted = not _listed_only(dataset)
    if rules.stock is not None:
        there = _stock(dataset, rules)
        table, unlisted = _only(table, there, unlisted), False
    if rules.allow is not None:
        table, unlisted = _only(table, _ids(dataset, rules.allow, "allow"), unlisted), False
    if rules.deny is not None:
        denied = pl.DataFrame({ITEM: _ids(dataset, rules.deny, "deny")}).unique()
        table = pl.DataFrame({ITEM: pl.Series([], dtype=pl.String)}) if table is None else table
        table = table.join(denied.with_columns(pl.lit(True).alias("denied")), on=ITEM, how="full", coalesce=True)
        eligible = pl.col(ELIGIBLE).fill_null(unlisted) if ELIGIBLE in table.columns else pl.lit(True)
        table = table.with_columns((eligible & pl.col("denied").is_null()).alias(ELIGIBLE)).drop("denied")
    return Rules(
        table=table,
        unlisted=unlisted,
        most_per_group=rules.most_per_group,
        min_new=rules.min_new,
        hide_seen=rules.hide_seen,
        hide_bought=rules.hide_bought,
        written=rules.model_dump(mode="json", exclude_defaults=True),
    )


def _of_columns(dataset: Dataset, rules: Written, rows: pl.DataFrame | None) -> pl.DataFrame | None:
    """What expressions say of the items that the item table lists; ids are text."""
    if rows is None:
        if rules.of_columns:
            raise InputError(
                f"{KEY}: expressions look at columns of items, and the dataset has no item table (`items`)."
            )
        return None
    if VALID_FROM in rows.columns:
        rows = rows.sort(VALID_FROM).unique(ITEM_ID, keep="last", maintain_order=True)
    values = {ELIGIBLE: _value(rules.eligible, "eligible", rows), BOOST: _value(rules.boost, "boost", rows)}
    values |= {NEW: _value(rules.new, "new", rows)}
    if rules.group is not None:
        _require_columns([rules.group], rows, f"{KEY}.group")
        values[GROUP] = pl.col(rules.group).cast(pl.String)
    chosen = {name: value for name, value in values.items() if value is not None}
    return rows.select(pl.col(ITEM_ID).cast(pl.String).alias(ITEM), **chosen)


def _value(text: str | None, key: str, rows: pl.DataFrame) -> pl.Expr | None:
    """An expression of items: true or false, of `boost` a number."""
    if text is None:
        return None
    return _expression(text, f"{KEY}.{key}", rows, number=key == "boost")


def _expression(text: str, key: str, rows: pl.DataFrame, *, number: bool = False) -> pl.Expr:
    try:
        value = read_sql(text)
        _require_columns(value.meta.root_names(), rows, key)
        dtype = type_on(value, dict(rows.schema))
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(key) else f"{key}: {error}") from None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{key}: {text!r} does not fit the table: {str(error).splitlines()[0]}") from None
    if not (dtype.is_numeric() if number else dtype == pl.Boolean):
        example = "a number, such as CASE WHEN brand = 'own' THEN 0.5 ELSE 0 END"
        wanted = example if number else "true or false, such as price > 0"
        raise InputError(f"{key}: {text!r} is {dtype}; give {wanted}.")
    return value


def _require_columns(names: list[str], rows: pl.DataFrame, key: str) -> None:
    """Raise InputError, with what helps, for a column that the item table or the stock table does not have."""
    for name in names:
        if name in rows.columns:
            continue
        if key.startswith(f"{KEY}.stock"):
            raise InputError(f"{key}: {unknown('column of the stock table', name, rows.columns)}")
        raise InputError(
            f"{key}: {unknown('column of the item table', name, rows.columns)} Of a file, the columns that the YAML maps are "
            f"read: write it under items.columns, as in `items: {{columns: {{{name}: {name}}}}}`, the file's own name last."
        )


def _stock(dataset: Dataset, rules: Written) -> pl.Series:
    """The ids of the rows of the stock table that may be recommended."""
    assert rules.stock is not None
    rows = read_table(_place(dataset, rules.stock.path), f"{KEY}.stock.path")
    if rules.stock.item not in rows.columns:
        raise InputError(f"{KEY}.stock.item: {unknown('column', rules.stock.item, rows.columns)}")
    typed = rows.with_columns(_number(rows[name]) for name in rows.columns if name != rules.stock.item)
    value = _expression(rules.stock.when, f"{KEY}.stock.when", typed)
    return typed.filter(value)[rules.stock.item].cast(pl.String)


def _number(text: pl.Series) -> pl.Series:
    """A column of text as numbers where all of it is; files of text hold nothing else."""
    if text.dtype != pl.String:
        return text
    number = text.cast(pl.Float64, strict=False)
    return number if number.null_count() == text.null_count() else text


def _only(table: pl.DataFrame | None, ids: pl.Series, unlisted: bool) -> pl.DataFrame:
    """A table of these items alone: as eligible as they were before."""
    chosen = pl.DataFrame({ITEM: ids}).drop_nulls().unique(maintain_order=True)
    if table is None:
        return chosen.with_columns(pl.lit(unlisted).alias(ELIGIBLE))
    listed = table if ELIGIBLE in table.columns else table.with_columns(pl.lit(True).alias(ELIGIBLE))
    listed = listed.with_columns(pl.col(ELIGIBLE).fill_null(False))
    return chosen.join(listed, on=ITEM, how="left", maintain_order="left").with_columns(
        pl.col(ELIGIBLE).fill_null(unlisted)
    )


def _ids(dataset: Dataset, given: tuple[str, ...] | str, key: str) -> pl.Series:
    """A list of ids: as it is written, or of a file with one a line, or with a column item_id."""
    if not isinstance(given, str):
        return pl.Series(ITEM, list(given), dtype=pl.String)
    path = _place(dataset, given)
    if path.suffix.lower() in (".parquet", ".csv", ".tsv", ".jsonl"):
        rows = read_table(path, f"{KEY}.{key}")
        if ITEM_ID not in rows.columns:
            raise InputError(f"{KEY}.{key}: {path} has no column {ITEM_ID}; there are {', '.join(rows.columns)}.")
        return rows[ITEM_ID].cast(pl.String)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{KEY}.{key}: {path} cannot be read ({reason(error)}). Give a file with an item id a line."
        ) from None
    return pl.Series(ITEM, [line for line in lines if line and not line.startswith("#")], dtype=pl.String)


def _place(dataset: Dataset, path: str) -> Path:
    """A path that is seen from the source."""
    return Path(dataset.source).expanduser() / Path(path).expanduser()


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        about = path.stat()
    except OSError:
        return (str(path), 0, 0)
    return (str(path), about.st_mtime_ns, about.st_size)
