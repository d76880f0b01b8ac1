"""The working folder as a project: which dataset its nightly run is of, and where the deployments are.

prefect.yaml of the working folder: `entrypoint: flows.retrain.retrain`, `parameters: {data: {dataset: my-shop.yaml}}`
-> `overnight retrain` there is of my-shop.yaml, and `overnight serve` serves that file's deployments
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from schemas.errors import InputError

FILE = "prefect.yaml"
TREE = Path(__file__).resolve().parents[1]  # where Overnight's own prefect.yaml is, in a checkout
DEMO = "demo"
NIGHT = ("flows/retrain.py:retrain", "flows.retrain.retrain")


def dataset_here() -> str:
    """The dataset of commands that name none: that of the nightly run in the working folder's prefect.yaml, else the demo."""
    night = _night(Path.cwd())
    data = ((night or {}).get("parameters") or {}).get("data")
    named = data.get("dataset") if isinstance(data, dict) else None
    return named if isinstance(named, str) and named else DEMO


def deployments_folder() -> Path:
    """The folder whose prefect.yaml is served: the working folder, where that has a nightly run of ours, else the checkout's.

    Raises:
        InputError: when there is neither.
    """
    here = Path.cwd()
    if _night(here) is not None:
        return here
    if (TREE / FILE).is_file():
        return TREE
    raise InputError(
        f"{here} has no {FILE} with a nightly run of Overnight: begin a project by `overnight init my-shop --from EVENTS`, and "
        "serve in its folder."
    )


def _night(folder: Path) -> dict[str, Any] | None:
    """The deployment of the nightly run; None where the folder has none, or its file cannot be read (Prefect says why)."""
    try:
        read = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    deployments = read.get("deployments") if isinstance(read, dict) else None
    for deployment in deployments if isinstance(deployments, list) else ():
        if isinstance(deployment, dict) and deployment.get("entrypoint") in NIGHT:
            return deployment
    return None
