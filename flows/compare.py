"""Several models on the same folds and the same cases: trained, measured and shown on one page."""

from __future__ import annotations

from collections.abc import Sequence

from flows.contenders import NamedModel, contenders_of
from flows.folds import OnProgress, folds_of
from flows.in_service import model_of
from flows.measuring import Kind, measure_all, record
from flows.reports.comparison_page import PAGE, files_of
from flows.reports.plot import script_file
from flows.reports.templates import HERE
from flows.settings.settings import Settings
from schemas.artifacts import Manifest

CROSS_VALIDATIONS = "cross_validations"


def compare(
    settings: Settings, names: str, num_folds: int | None, window: int | None, progress: OnProgress = print
) -> Manifest:
    """Train and measure what `names` lists (see `flows.contenders`), as `compare_all` does.

    Raises:
        InputError: for names that are not there, and as `compare_all` does.
    """
    script_file()  # what the page needs is missed before anything is trained
    return compare_all(settings, contenders_of(names, settings), num_folds, window, progress)


def compare_all(
    settings: Settings,
    contenders: Sequence[NamedModel],
    num_folds: int | None,
    window: int | None,
    progress: OnProgress = print,
) -> Manifest:
    """Train and measure contenders on each fold -> `cross_validations/<id>`: result.json, table.md and comparison.html.

    Facts: those of `measuring.record`.

    Raises:
        InputError: for folds or settings that do not fit; when the first model diverges.
    """
    kind = Kind(CROSS_VALIDATIONS, files_of, (HERE / f"{PAGE}.j2", script_file()))
    for contender in contenders:
        if contender.model:
            model_of(settings.artifacts, contender.model)
    folds = folds_of(settings, num_folds, window, progress)
    return record(settings, kind, contenders, folds, measure_all(contenders, folds, progress))
