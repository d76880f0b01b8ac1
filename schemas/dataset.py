"""Dataset: the typed form of one YAML file that says where events are, what they mean and how they become sessions."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from schemas import places, plugins
from schemas.columns import ITEM_ID, RESERVED, SESSION_ID, TAKEN, TIMESTAMP
from schemas.errors import InputError, parse
from schemas.serving import Serving as Serving
from schemas.sources import Database as Database
from schemas.sources import EventSource as EventSource
from schemas.sources import FileOptions as FileOptions
from schemas.sources import ItemSource as ItemSource
from schemas.sources import Part, Zone, never_a_url
from schemas.sources import UserSource as UserSource
from schemas.spellings import current
from schemas.urls import refuse_secrets
from schemas.yaml_keys import load_yaml

SHIPPED = Path(__file__).parent / "datasets"
IMPORTED = "sources"  # the folder of a root with what was read from databases


class Step(Part):
    """A name and its options: a step, a check or an encoder, each a file of that name in preprocessing."""

    name: Annotated[str, AfterValidator(current)]
    options: dict[str, Any] = Field(default_factory=dict)

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


class SessionRule(Part):
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


class Feature(Part):
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


class Label(Part):
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


class Profile(Part):
    """When a day's distribution is said to have drifted from that of the days before."""

    warn_above: float = Field(0.2, gt=0, description="Population stability index above which a column is warned about.")
    days: int = Field(7, ge=1, description="Days before it that a day is compared with.")


class Dataset(Part):
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
    database: Annotated[Database | None, BeforeValidator(never_a_url)] = Field(
        None,
        description="Where rows come from, in place of files: see docs/databases.md. --source reads files all the same.",
    )
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
    serving: Serving = Serving()
    split: Literal["day", "leave_one_out"] = Field(
        "day", description="day: the last full day is the test; leave_one_out: the last item of each history is."
    )
    defaults: dict[str, dict[str, Any] | str] = Field(  # by group; `causal` is `{name: causal}`, as anywhere
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

    @model_validator(mode="after")
    def _rows_come_from_one_place(self) -> Dataset:
        """The tables of a database are written where paths have their defaults."""
        if self.database is None:
            return self
        for name in ("events", "items", "users"):
            table, query = getattr(self, name), getattr(self.database, name)
            if query and table is None:
                raise ValueError(f"database.{name} has a query, and there is no section {name} that says its columns")
            if table and query is None:
                raise ValueError(f"{name} has columns, and database.{name} no query; write one, or leave {name} out")
            if table and table.path != type(table).model_fields["path"].default:
                raise ValueError(f"{name}.path is for files, and rows come from the database; leave it out")
            if table and table.format not in ("auto", "parquet"):
                raise ValueError(f"{name}.format is for files, and rows come from the database; leave it out")
        return self

    def own_parts(self) -> dict[str, str]:
        """By "kind/name", the hashes of all steps, checks and encoders of other people that the dataset names."""
        names = {
            "steps": [step.name for step in self.steps],
            "checks": [check.name for check in self.checks],
            "encoders": [entry.name for feature in self.features.values() for entry in feature.encode],
        }
        return plugins.contents(names, self.plugins)

    def at(self, source: str | Path | None, root: str | Path | None = None) -> Dataset:
        """The same dataset with its files in `source`, in $OVERNIGHT_SOURCE, or where it says, in that order.

        That of a database has them below the root of artifacts (else $OVERNIGHT_ROOT or overnight-data), unless `source` is
        given, which is read in place of the database.
        """
        if self.database and not source:
            below = Path(root or os.environ.get("OVERNIGHT_ROOT") or "overnight-data").expanduser().resolve()
            return self.model_copy(update={"source": str(below / IMPORTED / self.name)})
        place = str(source or os.environ.get("OVERNIGHT_SOURCE") or self.source)
        if not place:
            hint = self.obtain or "see its YAML"
            raise InputError(f"Where are the files of {self.name!r}? Give --source FOLDER (get them: {hint}).")
        if "://" in place:
            refuse_secrets(place)
        else:
            place = str(Path(place).expanduser())
            self._refuse_plugins_among_events(Path(place))
        return self.model_copy(update={"source": place, "database": None})

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
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error}). Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping such as 'name: shop', got {type(data).__name__}")
    if "plugins" in data:
        data["plugins"] = _from(path.parent, data["plugins"])
    for key, value in (changes or {}).items():
        _change(data, key, value)
    if data.get("source") and data.get("database"):
        raise InputError(
            f"{path}: source and database are both given; write one of them (--source reads files all the same)."
        )
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
