"""Image and services of compose.yaml, built and run for real: `make image`, or this test with OVERNIGHT_TRY_IMAGE=1."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASKED = os.environ.get("OVERNIGHT_TRY_IMAGE") == "1"


@pytest.mark.skipif(not ASKED, reason="takes minutes and gigabytes: set OVERNIGHT_TRY_IMAGE=1")
@pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed")
def test_the_image_is_built_and_its_services_run_a_night() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docker" / "try_image.py"], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert done.stdout.endswith("Images and services work.\n")
