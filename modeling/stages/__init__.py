"""The stages of a night: manifests and settings in, a manifest out; a stage whose work is done returns at once.

`train` -> models/<id>, `evaluate` -> evaluations/<id>, `compare` -> comparisons/<id>, `refit` -> models/<id> again,
`promote` -> the model in service.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling.stages.comparing import compare as compare
    from modeling.stages.comparing import promote as promote
    from modeling.stages.evaluating import evaluate as evaluate
    from modeling.stages.refitting import refit as refit
    from modeling.stages.training import train as train

STAGES = {
    "train": "training",
    "evaluate": "evaluating",
    "compare": "comparing",
    "promote": "comparing",
    "refit": "refitting",
}


def __getattr__(name: str) -> Any:
    """A stage, imported when it is asked for: the code of one is no part of another's results."""
    if name not in STAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{STAGES[name]}"), name)
