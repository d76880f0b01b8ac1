"""Dataset: the typed form of one YAML file that says where events are, what they mean and how they become sessions."""

from __future__ import annotations

import codecs
import os
import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas import places, plugins
from schemas.column_types import ColumnType, Computed, SourceColumns, TimeFormats, check_types
from schemas.columns import ITEM_ID, POSITION, RESERVED, SESSION_ID, TAKEN, TIMESTAMP, USER_ID
from schemas.errors import InputError, parse
from schemas.spellings import current
from schemas.yaml_keys import load_yaml

SHIPPED = Path(__file__).parent / "datasets"


@cache
def _zones() -> set[str]:
    from zoneinfo import available_timezones

    return available_timezones()  # walks through all files of the zone database


def _known_zone(zone: str) -> str:
    if zone not in _zones():
        raise ValueError("not an IANA time zone such as UTC or Europe/Berlin")
    return zone


Zone = Annotated[str, AfterValidator(_known_zone)]


TextType = Literal["float", "time", "date", "inferred"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileOptions(_Part):
    """How files are read: the same words for events, items and users."""

    format: Literal["auto", "csv", "json", "jsonl", "parquet"] = Field(
        "auto",
        description="auto goes by the end of each name (.csv, .tsv, .json, .jsonl, .ndjson, .parquet, any case, text also "
        "with .gz, .zst or .bz2) and lists what it leaves out; another word reads names of any end. json and "
        "jsonl are the same: an object a line, or one list of objects.",
    )
    separator: str | None = Field(
        None,
        description="Text between the fields of a CSV, such as ';', '\\t' or '::'. Left out: a tab in .tsv, else ','.",
    )
    header: bool = Field(
        True,
        description="Whether the first line of a CSV names its columns. Without, they are mapped by place: "
        "`item_id: 3` or `item_id: column_3` is the third.",
    )
    quote: str = Field(
        "auto",
        description="Character around CSV fields that hold separators or line ends, or none: quotes are text like any "
        'other. auto is " where every row then has as many fields as the header, else none.',
    )
    encoding: str = Field(
        "utf-8",
        description="Encoding of text files, such as latin-1 or windows-1252. UTF-16 with its mark is recognised.",
    )
    null_words: tuple[str, ...] | None = Field(
        None,
        description="Text that stands for null in columns of text. Left out: \\N, NULL and null in CSV and JSON, nothing "
        "in Parquet. An empty CSV field is null in any case; write 'None', 'NaN' or 'NA' here where they mean it.",
    )
    decimal: Literal[".", ","] = Field(
        ".",
        description="Decimal mark of numbers in text: with ',' 1.250,5 is 1250.5. Ids and event types stay as they are.",
    )

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str | None) -> str | None:
        """`\\t` and `tab` are a tab, however YAML quotes them."""
        separator = {"\\t": "\t", "tab": "\t", "\\x01": "\x01"}.get(separator or "", separator)
        if separator is not None and (not separator or set(separator) & set('\r\n"')):
            raise ValueError("must be one or more characters, none of them a line end or a quote")
        return separator

    @field_validator("quote")
    @classmethod
    def _quotes(cls, quote: str) -> str:
        if quote not in ("auto", "none") and (len(quote) != 1 or not quote.isascii()):
            raise ValueError("must be auto, none or one character such as '\"'")
        return quote

    @field_validator("null_words", mode="before")
    @classmethod
    def _as_text(cls, words: Any) -> Any:
        """YAML reads NULL and null without quotes as nothing, and -1 as a number."""
        if not isinstance(words, list | tuple):
            return words
        return [text for word in words for text in (("NULL", "null") if word is None else (_plain(word),))]

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            found = codecs.lookup(encoding)
            b"".decode(encoding)
        except LookupError:
            raise ValueError("not an encoding, such as utf-8, latin-1, windows-1252, utf-16 or shift_jis") from None
        return "utf-8" if found.name == "utf-8-sig" else found.name

    @model_validator(mode="before")
    @classmethod
    def _places(cls, value: Any) -> Any:
        """Without a header a column is named by its place, from 1: `item_id: 3` is column_3."""
        if isinstance(value, dict) and value.get("header") is False and isinstance(value.get("columns"), dict):
            named = {
                ours: f"column_{place}" if type(place) is int else place for ours, place in value["columns"].items()
            }
            value = {**value, "columns": named}
        return value

    @property
    def file_options(self) -> FileOptions:
        """These words alone, without those of the source that they are part of."""
        return FileOptions(**{name: getattr(self, name) for name in FileOptions.model_fields})


def _plain(word: Any) -> Any:
    return str(word) if isinstance(word, int | float) and not isinstance(word, bool) else word


PATHS = (
    "A name may be a path: geo.country into an object, items[].id for a row an element of a list, items[0].id for its "
    "first, params[key=page].value for the element with that key, items[].index() for its place, col.split(' ') for a list."
)


class EventSource(FileOptions):
    """Where events are and what their columns are called."""

    path: str = Field("events", description="File, folder or glob below the source: Parquet, CSV or JSON.")
    columns: SourceColumns = Field(
        description="Our name: the file's name, or {sql: an expression of the file's columns}. Further columns keep the "
        f"name given here. {PATHS}"
    )
    types: dict[str, ColumnType] = Field(
        {},
        description="Our name: integer, float, text, boolean, time or date, or {type: ..., unfit: quarantine or null, "
        "tolerate: share}. Left out: the type of a Parquet file; in text files what features take, else text.",
    )
    text_types: dict[str, TextType] = Field(
        {}, description="Types of columns of text files without a declared one; filled in with what features take."
    )
    time_format: TimeFormats = Field(
        (),
        description="Form of times written as text, such as %d/%m/%Y %H:%M, or several; left out: ISO 8601, also with UTC.",
    )
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        "auto",
        description="Unit of integer timestamps; auto decides by their size (seconds below 1e11, then ms, us, ns).",
    )
    time_zone: Zone = Field("UTC", description="Zone of times that are written without one.")
    id_type: Literal["auto", "integer", "string"] = Field(
        "auto",
        description="Type of user, session and item ids that `types` does not declare; auto keeps that of Parquet files, and "
        "text for text files. Ids that do not fit are quarantined.",
    )

    @field_validator("columns")
    @classmethod
    def _enough(cls, columns: dict[str, str | Computed]) -> dict[str, str | Computed]:
        if ITEM_ID not in columns:
            raise ValueError("item_id must be mapped")
        if not {USER_ID, SESSION_ID} & columns.keys():
            raise ValueError("user_id or session_id must be mapped")
        if not {TIMESTAMP, POSITION} & columns.keys():
            raise ValueError("timestamp, or position for histories without times, must be mapped")
        return columns

    @model_validator(mode="after")
    def _types_fit(self) -> EventSource:
        check_types(self.types, self.columns)
        return self


class ItemSource(FileOptions):
    """A table with one row an item, for the step join_items."""

    path: str = Field("items.parquet", description="File below the source.")
    columns: SourceColumns = Field(
        description="Our name: the file's name, or {sql: ...}; item_id is required. With valid_from an item may have a row "
        "for each change."
    )
    types: dict[str, ColumnType] = Field({}, description="As in events; ids become what the events' are.")
    text_types: dict[str, TextType] = Field({}, description="As in events.")
    unknown: Literal["keep", "quarantine"] = Field("keep", description="Events of items that this table does not know.")
    wait_days: int = Field(
        7,
        ge=0,
        description="unknown: quarantine. Days before the newest whose events come in when the table knows their item later.",
    )

    @field_validator("columns")
    @classmethod
    def _has_key(cls, columns: dict[str, str | Computed]) -> dict[str, str | Computed]:
        if ITEM_ID not in columns:
            raise ValueError("item_id must be mapped")
        return columns

    @model_validator(mode="after")
    def _types_fit(self) -> ItemSource:
        check_types(self.types, self.columns)
        return self


class UserSource(FileOptions):
    """A table with one row a user, for the step join_users."""

    path: str = Field("users.parquet", description="File below the source.")
    columns: SourceColumns = Field(description="Our name: the file's name, or {sql: ...}; user_id is required.")
    types: dict[str, ColumnType] = Field({}, description="As in events; ids become what the events' are.")
    text_types: dict[str, TextType] = Field({}, description="As in events.")

    @field_validator("columns")
    @classmethod
    def _has_key(cls, columns: dict[str, str | Computed]) -> dict[str, str | Computed]:
        if USER_ID not in columns:
            raise ValueError("user_id must be mapped")
        return columns

    @model_validator(mode="after")
    def _types_fit(self) -> UserSource:
        check_types(self.types, self.columns)
        return self


class Step(_Part):
    """A name and its options: a step, a check or an encoder, each a file of that name in preprocessing."""

    name: Annotated[str, AfterValidator(current)]
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`drop_repeats` or `join_items: {columns: [price]}`."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1 and "name" not in value:
            (name, options), *_ = value.items()
            return {"name": name, "options": options or {}}
        return value


class SessionRule(_Part):
    """How events are cut into sessions."""

    rule: Literal["given", "gap", "history"] = Field(
        "gap", description="given: by session_id; gap: after inactivity; history: all events of a user are one session."
    )
    gap_minutes: float = Field(30.0, gt=0, description="Inactivity that ends a session (rule gap).")
    idle_minutes: float = Field(
        720.0,
        gt=0,
        description="Inactivity after which a given session is over, so that days can be closed (rule given).",
    )
    min_length: int = Field(2, ge=1, description="Shorter sessions are dropped.")
    max_length: int = Field(50, ge=2, description="The most recent events kept of a longer session.")

    @model_validator(mode="after")
    def _some_fit(self) -> SessionRule:
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length {self.min_length} is above max_length {self.max_length}: no session would be left"
            )
        return self


class Feature(_Part):
    """One model input made from one column by one or more encoders of preprocessing/encoders."""

    column: str | None = Field(None, description="Column it is made from; the feature's own name if left out.")
    per: Literal["event", "session"] = Field(
        "event",
        description="event: a list, one value an event; session: one value, that of the session's first kept event, which "
        "is known when the session starts.",
    )
    encode: tuple[Step, ...] = Field(description="An encoder's name, or a list of them applied in order.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`{encode: category, min_count: 5}`: further keys are options of the only encoder."""
        if isinstance(value, str):
            value = {"encode": value}
        if isinstance(value, dict) and isinstance(value.get("encode"), str):
            own = {key: option for key, option in value.items() if key in ("column", "per")}
            options = {key: option for key, option in value.items() if key not in ("column", "per", "encode")}
            return {**own, "encode": ({"name": value["encode"], "options": options},)}
        return value


class Label(_Part):
    """A column written as it is, unencoded: what heads may predict. It holds numbers or booleans."""

    column: str
    per: Literal["session", "event"] = Field(
        "session",
        description="session: one value, that of the session's last event; event: a list, one value an event.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`bought` or `{column: dwell, per: event}`."""
        return {"column": value} if isinstance(value, str) else value


class Profile(_Part):
    """When a day's distribution is said to have drifted from that of the days before."""

    warn_above: float = Field(0.2, gt=0, description="Population stability index above which a column is warned about.")
    days: int = Field(7, ge=1, description="Days before it that a day is compared with.")


class Dataset(_Part):
    """Everything Overnight must know of one source of events."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Names the model in service, folders and runs.")
    title: str = Field("", description="One line for people.")
    obtain: str = Field("", description="Where to get the data.")
    terms: str = Field("", description="On what terms it may be used.")
    plugins: tuple[str, ...] = Field(
        (),
        description="Folders of your own steps, checks, encoders, ...: a path or a list, seen from the YAML's folder.",
    )
    source: str = Field("", description="Folder of the files; --source or the variable OVERNIGHT_SOURCE overrides it.")
    time_zone: Zone = Field("UTC", description="Zone in which days begin and hours are counted.")
    events: EventSource
    items: ItemSource | None = None
    users: UserSource | None = None
    since: date | None = Field(None, description="First day of events that is used; earlier ones are left out.")
    checks: tuple[Step, ...] = Field((), description="Rules a good row keeps, beside readable ids and times.")
    steps: tuple[Step, ...] = ()
    duplicates: Literal["drop", "keep"] | tuple[str, ...] = Field(
        "drop",
        description="drop: of rows equal in all mapped columns, one is kept; keep: all are; a list of columns: rows of "
        "one user on one local day that are equal in those are the same event.",
    )
    sessions: SessionRule = SessionRule()
    features: dict[str, Feature] = Field({}, description="Model inputs; item_id is added when it is not named.")
    labels: tuple[Label, ...] = Field(
        (), description="Columns written unencoded beside the features: what heads may predict."
    )
    profile: Profile = Profile()
    split: Literal["day", "leave_one_out"] = Field(
        "day", description="day: the last full day is the test; leave_one_out: the last item of each history is."
    )
    defaults: dict[str, dict[str, Any]] = Field(
        {}, description="Settings that suit this dataset, by group (body, loss, training, ...); --set overrides them."
    )

    @field_validator("plugins", mode="before")
    @classmethod
    def _list_of_folders(cls, given: Any) -> Any:
        """Absolute, so that workers that get the dataset find them."""
        given = [given] if isinstance(given, str | Path) else [] if given is None else given
        if not isinstance(given, list | tuple) or not all(isinstance(path, str | Path) and str(path) for path in given):
            raise ValueError("give a folder or a list of folders, such as `plugins: plugins`")
        return [str(Path(path).expanduser().resolve()) for path in given]

    @field_validator("features")
    @classmethod
    def _names(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        for name in features:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):  # it names a column and a file
                raise ValueError(f"feature {name!r} must be letters, digits and underscores")
            if name in TAKEN:
                taken = ", ".join(sorted(TAKEN))
                raise ValueError(f"feature {name!r} needs another name (with `column: {name}`); taken: {taken}")
        for name, feature in features.items():
            if feature.column in RESERVED:
                raise ValueError(
                    f"feature {name!r}: column {feature.column!r} is Overnight's own ({RESERVED[feature.column]}), which no "
                    f"input may tell; map the file's column under another name, such as file_{feature.column}"
                )
        return features

    @field_validator("duplicates")
    @classmethod
    def _some_columns(cls, duplicates: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not duplicates:
            raise ValueError("names no column; write drop, keep, or a list of columns such as [user_id, event_id]")
        return duplicates

    @model_validator(mode="after")
    def _labels_have_names_of_their_own(self) -> Dataset:
        names = [label.column for label in self.labels]
        taken = {ITEM_ID, *TAKEN}
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"labels: {name!r} is there twice")
            if name in taken:
                raise ValueError(
                    f"labels: column {name!r} needs another name (the step rename gives one); taken: {', '.join(sorted(taken))}"
                )
            if name in self.features:
                raise ValueError(f"labels: {name!r} is a feature, which needs another name (with `column: {name}`)")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        if self.sessions.rule == "given" and SESSION_ID not in self.events.columns:
            raise ValueError("sessions.rule is 'given', so events.columns must map session_id")
        if self.sessions.rule == "gap" and TIMESTAMP not in self.events.columns:
            raise ValueError("sessions.rule is 'gap', so events.columns must map timestamp")
        if self.split == "day" and TIMESTAMP not in self.events.columns:
            raise ValueError("split is 'day', so events.columns must map timestamp (or use split: leave_one_out)")
        if self.split == "day" and self.sessions.rule == "history":
            raise ValueError("sessions.rule is 'history': histories never close, so split must be leave_one_out")
        return self

    def own_parts(self) -> dict[str, str]:
        """By "kind/name", the hashes of all steps, checks and encoders of other people that the dataset names."""
        names = {
            "steps": [step.name for step in self.steps],
            "checks": [check.name for check in self.checks],
            "encoders": [entry.name for feature in self.features.values() for entry in feature.encode],
        }
        return plugins.contents(names, self.plugins)

    def at(self, source: str | Path | None) -> Dataset:
        """The same dataset with its files in `source`, in $OVERNIGHT_SOURCE, or where it says, in that order."""
        place = str(source or os.environ.get("OVERNIGHT_SOURCE") or self.source)
        if not place:
            hint = self.obtain or "see its YAML"
            raise InputError(f"Where are the files of {self.name!r}? Give --source FOLDER (get them: {hint}).")
        if "://" not in place:
            place = str(Path(place).expanduser())
            self._refuse_plugins_among_events(Path(place))
        return self.model_copy(update={"source": place})

    def _refuse_plugins_among_events(self, source: Path) -> None:
        """What lies among data is data, and is not run."""
        events = (source / self.events.path).resolve()
        for folder in map(Path, self.plugins):
            if events != source.resolve() and (events == folder or events in folder.parents):
                raise InputError(
                    f"plugins: {folder} lies among the events ({events}), which are not run as code; move it."
                )


def known() -> dict[str, places.Place]:
    """The datasets that can be named, and where they are: Overnight's own, and those of OVERNIGHT_PLUGINS and packages."""
    return places.places(SHIPPED, ())


def read_dataset(name_or_file: str, changes: dict[str, Any] | None = None) -> Dataset:
    """The dataset of that name, or of that YAML file, with dotted `changes` such as {"sessions.gap_minutes": 20}.

    Folders under `plugins` are taken from the YAML's folder (those of changes from the working folder), followed by those of
    OVERNIGHT_PLUGINS. From then on this process searches them for the parts of models, too (`plugins.use`).

    Raises:
        InputError: for an unknown name (with the known ones), an unreadable file, a key or value that does not fit.
    """
    dataset = load_dataset(name_or_file, changes)
    plugins.use(dataset.plugins)
    return dataset


def load_dataset(name_or_file: str, changes: dict[str, Any] | None = None) -> Dataset:
    """The same, to look at it only: this process searches the folders it did before."""
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = plugins.find_file(SHIPPED, name_or_file, ())
    try:
        data = load_yaml(path.read_text(), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping such as 'name: shop', got {type(data).__name__}")
    if "plugins" in data:
        data["plugins"] = _from(path.parent, data["plugins"])
    for key, value in (changes or {}).items():
        _change(data, key, value)
    dataset = parse(Dataset, data, str(path))
    return dataset.model_copy(update={"plugins": tuple(map(str, places.searched(dataset.plugins)))})


def _from(folder: Path, given: Any) -> Any:
    """Paths as they are meant in a file of that folder; what is none is left for the class to refuse."""
    if isinstance(given, list):
        return [_from(folder, path) for path in given]
    return str(folder / Path(given).expanduser()) if isinstance(given, str) and given else given


def _change(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise InputError(f"dataset.{key}: {parent!r} holds {data!r}, which has no keys")
    data[last] = value
