"""The checks of `tests/cuda`, where there is a GPU; what they need next to torch may be missing there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cuda import CHECKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize("check", CHECKS)
def test_on_a_gpu(check: str, tmp_path: Path) -> None:
    CHECKS[check](tmp_path)
