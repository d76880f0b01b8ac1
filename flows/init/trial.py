"""The first rows of a dataset, read and planned as a night would: what does not work is said before anything is written."""

from __future__ import annotations

from pathlib import Path

from preprocessing.features.uses import with_text_types
from preprocessing.frames import collect
from preprocessing.plan import Plan
from preprocessing.source.events import EventFiles
from schemas.dataset import load_dataset
from schemas.errors import InputError

ROWS = 1000


def try_dataset(file: Path) -> None:
    """Read some events of a dataset and compile its plan.

    Raises:
        InputError: for what does not fit.
    """
    try:
        dataset = load_dataset(str(file))
        dataset = with_text_types(dataset)
        events = EventFiles(dataset).scan()
        collect(events.head(ROWS))
        Plan.of(dataset, events.collect_schema())
    except InputError as error:
        raise InputError(
            f"What was guessed does not work: {error} Say what is wrong by --column OURS=YOURS. Nothing was written."
        ) from None
