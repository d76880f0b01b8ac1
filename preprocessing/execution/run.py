"""What all batches of one run work with: dataset, source, engine, workers, and where progress goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from preprocessing.encoders.category import Category
from preprocessing.engines import EngineName, engine_of
from preprocessing.execution.reading import Room, Source
from preprocessing.features.state import State
from preprocessing.plan import Plan, plan_of
from preprocessing.source.files import find_files
from preprocessing.steps import Step
from preprocessing.vocabulary import from_nvtabular
from schemas.artifacts import Artifacts
from schemas.columns import ID, VALUE
from schemas.dataset import Dataset
from schemas.errors import InputError
from schemas.progress import Progress, Report

# New files of up to this size are kept in memory. A GPU's buckets are large, and so is the memory of its machine.
IN_MEMORY_BYTES: dict[EngineName, int] = {"cpu": 128_000_000, "nvtabular": 128_000_000, "gpu": 1_024_000_000}
ROW_BYTES = 96  # of a row of events whose columns are not known yet: a guess, for a number of buckets
TEXT_BYTES = 32  # of a value without a fixed size


@dataclass(frozen=True)
class Workers:
    """What runs the tasks of a batch, and into how many buckets users are divided at least."""

    executor: Executor | None = None
    min_buckets: int = 1
    bucket_rows: int | None = None
    """Rows of a bucket at most; None: what the engine can hold."""
    threads: int = 1
    """How many threads of this process work on a batch that fits in its memory, on a CPU."""

    @property
    def takes_small(self) -> bool:
        """Whether a batch that fits in memory stays in this process: how it is divided is not said otherwise."""
        return self.threads > 1 or self == Workers()


def room_of(scratch: Path, engine: EngineName, workers: Workers, steps: Iterable[Step]) -> Room:
    """Where new files go before the columns that they have are known."""
    divides = not any(step.needs_all_rows or type(step).read is not Step.read for step in steps)
    rows = workers.bucket_rows or engine_of(engine).bucket_rows(ROW_BYTES)
    return Room(scratch, IN_MEMORY_BYTES[engine], rows, workers.min_buckets, divides)


@dataclass
class Run:
    """What all batches of one run work with."""

    artifacts: Artifacts
    dataset: Dataset
    source: Source
    line: str
    scratch: Path
    engine: EngineName
    workers: Workers
    report: Report
    secrets: tuple[str, ...] = ()
    """Hashes of the keys that steps use."""
    seconds: dict[str, float] = field(default_factory=dict)
    written: dict[str, State] = field(default_factory=dict, repr=False)
    """By name, the states of the batch that this run wrote last: they need not be read."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Hashes of the tables and keys that steps use, and of people's own steps, checks and encoders."""
        return (*self.source.tables.values(), *self.secrets, *self.dataset.own_parts().values())

    @property
    def plan(self) -> Plan:
        """The plan for events of the line's types; a batch's own may see values as they were found, too."""
        return plan_of(self.dataset.model_dump_json(), tuple(self.source.types.items()), self.reads)

    @property
    def bucket_rows(self) -> int:
        """Rows of a bucket at most."""
        return self.workers.bucket_rows or engine_of(self.engine).bucket_rows(bytes_a_row(self.source.types))

    def say(self, message: str) -> None:
        """One line for people."""
        self.report(Progress("prepare", message=message))

    def tick(self, phase: str, done: int, total: int) -> None:
        """A part of a phase is done; the end of a phase is reported by itself."""
        if done < total:
            self.report(Progress(phase, done, total, f"part {done} of {total} ({100 * done // total}%)"))

    def start(self) -> State:
        """The state before any day: the NVTabular vocabularies that features start from.

        Raises:
            InputError: for files that are none, and ids that do not fit the encoder.
        """
        fitted = {}
        for feature in self.plan.features:
            encoder = feature.encoders[-1]
            if isinstance(encoder, Category) and encoder.start_from:
                (file, *_) = find_files(self.dataset, encoder.start_from, f"features.{feature.name}.start_from")
                vocabulary = from_nvtabular(Path(file.url))
                first, dtype = int(vocabulary[ID].head(1).sum()), self.plan.columns[feature.column]
                if first != encoder.first_id:
                    raise InputError(
                        f"{file.url}: ids begin at {first}, but those of feature {feature.name} at {encoder.first_id}."
                    )
                if vocabulary.schema[VALUE] != dtype:
                    raise InputError(
                        f"{file.url} holds {vocabulary.schema[VALUE]} values, column {feature.column!r} {dtype}."
                    )
                fitted[feature.state_name(len(feature.encoders) - 1)] = vocabulary
        return State(fitted)

    @contextmanager
    def phase(self, name: str, total: int = 1) -> Iterator[Callable[[str], None]]:
        """Time a phase; call what is given with what came out of it."""
        began = time.perf_counter()
        said: list[str] = []
        self.report(Progress(name, 0, total))
        yield said.append
        took = time.perf_counter() - began
        self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 3)
        self.report(Progress(name, total, total, f"{' '.join(said)} ({took:.1f} s)"))


def bytes_a_row(types: pl.Schema) -> int:
    """Bytes of a row of events as they are read, about."""
    return sum(8 if dtype.is_numeric() or dtype.is_temporal() else TEXT_BYTES for dtype in types.values())
