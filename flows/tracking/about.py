"""Of tonight's run, what no artifact says."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.tracking.flat import flat

if TYPE_CHECKING:
    from flows.settings.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 10.0  # for git


@dataclass(frozen=True)
class About:
    """Flat parameters and tags: where events came from, what prepared them, the preset, the commit of the code."""

    params: dict[str, str]
    tags: dict[str, str]

    @classmethod
    def of(cls, settings: Settings) -> About:
        """What the settings of a run say of it."""
        given = settings.data.model_dump(mode="json", exclude={"root", "dataset"})
        commit = _commit()
        return cls(
            flat(given, "data") | flat({"preset": settings.preset}),
            {"mlflow.source.git.commit": commit} if commit else {},
        )


def _commit() -> str:
    """The commit of the checkout that this code runs from, marked where files differ from it; empty where it is none."""
    if not (PROJECT / ".git").exists():
        return ""
    try:
        asked = ["git", "-C", str(PROJECT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
