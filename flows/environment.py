"""Prefect's surroundings: state below the artifact root, nothing sent anywhere. Call before Prefect is imported."""

from __future__ import annotations

import os
from pathlib import Path

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait must not burn the core another process needs
}


def prepare_environment(root: Path) -> None:
    """Set what is not set already. Without PREFECT_API_URL, runs are kept in SQLite in `root/prefect`."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(root.expanduser().resolve() / "prefect"))
