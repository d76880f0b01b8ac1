"""The model in service, measured on the candidate's test cases, whatever became of its folder and of the code that made it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from modeling.config import EvaluationConfig
from modeling.evaluation.pointer import Champion
from modeling.stages.evaluating import evaluate
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import InputError

if TYPE_CHECKING:
    from modeling.service.rules import Rules

Progress = Callable[[str], object]


def measure_in_service(
    artifacts: Artifacts,
    champion: Champion,
    rival: Manifest | None,
    sessions: Manifest,
    config: EvaluationConfig,
    progress: Progress,
    rules: Rules | None,
) -> tuple[Manifest | None, list[str], str]:
    """Its evaluation, what it could not read, and why it cannot be compared (or "").

    `rival` is its manifest, None where that is damaged. What says nothing of the model, as a full disk, is raised.
    """
    if rival is None:
        return None, [], f"{artifacts.root / champion.model} is missing or damaged"
    alone = config.model_copy(update={"baselines": (), "lists": 0})
    try:
        return evaluate(artifacts, rival, sessions, alone, progress, rules), _read_as(rival, sessions), ""
    except InputError as error:
        return None, [], str(error)
    except Exception as error:  # an older model may fail in any way; the night goes on
        if _will_pass(error):
            raise
        progress(f"Measuring the model in service failed: {traceback.format_exception_only(error)[-1].strip()}")
        frame = traceback.extract_tb(error.__traceback__)[-1]
        progress(f"  at {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}")
        return None, [], f"measuring it failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"


def _will_pass(error: Exception) -> bool:
    """Whether an error says nothing of the model: a full memory or disk is no reason to replace it."""
    full = type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
    lost = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
    return full or (isinstance(error, MemoryError | OSError) and not lost)


def _read_as(model: Manifest, sessions: Manifest) -> list[str]:
    if model.parents == (sessions.name,):
        return []
    from modeling.vocabularies import as_read

    return as_read(sessions.folder, model.folder)
