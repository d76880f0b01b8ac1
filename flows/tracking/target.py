"""Where nights are recorded: SQLite below the artifact root, else what $MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from flows.tracking.flat import without_secrets
from schemas.artifacts import Artifacts

VARIABLE, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
SWITCH, OFF = "OVERNIGHT_MLFLOW", ("off", "0", "false", "no")
UI = "OVERNIGHT_MLFLOW_UI"  # where people see what is recorded, as `overnight serve` says
FOLDER, DATABASE, FILES = "mlflow", "mlflow.db", "artifacts"  # below the root, the last two in the first
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes for evaluations of language models
}


@dataclass(frozen=True)
class Target:
    """Where nights of a root are recorded. `uri` and `registry` may hold a password: they are never said or stored."""

    folder: Path  # `mlflow` below the root
    uri: str
    registry: str

    @property
    def database(self) -> Path | None:
        """The SQLite file below the root, where nothing else was named."""
        return None if os.environ.get(VARIABLE, "").strip() else self.folder / DATABASE

    @property
    def is_server(self) -> bool:
        """Whether it is reached by HTTP."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def name(self) -> str:
        """For people."""
        return without_secrets(self.uri)

    @property
    def key(self) -> str:
        """The same for the same place: that of a root stays when the root is moved."""
        places = f"{self.name} {without_secrets(self.registry)}"
        return FOLDER if self.database else hashlib.sha256(places.encode()).hexdigest()[:16]

    def page_of(self, experiment: str, run: str) -> str:
        """The address of a run's page, where people see it; else empty."""
        base = os.environ.get(UI, "").strip() or (self.name if self.is_server else "")
        return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run}" if base and run else ""


def is_on(artifacts: Artifacts) -> bool:
    """Whether there is anything to do for MLflow at all."""
    return target_of(artifacts.root) is not None


def target_of(root: Path) -> Target | None:
    """None where MLflow is switched off, or is not installed and nobody asks for it."""
    named = os.environ.get(VARIABLE, "").strip()
    if os.environ.get(SWITCH, "").strip().lower() in OFF or not (named or is_installed()):
        return None
    folder = root / FOLDER
    uri = named or f"sqlite:///{folder / DATABASE}"
    return Target(folder, uri, os.environ.get(REGISTRY, "").strip() or uri)


def is_installed() -> bool:
    """Whether MLflow can be imported; a folder that happens to be called mlflow is not it."""
    found = importlib.util.find_spec("mlflow")
    return found is not None and found.origin is not None


def can_show() -> bool:
    """Whether MLflow's UI is installed: `mlflow-skinny` has none."""
    try:
        importlib.metadata.distribution("mlflow")
    except importlib.metadata.PackageNotFoundError:
        return False
    return is_installed()
