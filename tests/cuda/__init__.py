"""What only a real GPU shows of training, ranking and serving, as functions that ask for a folder; no test framework is needed.

    python -m tests.cuda OUT [NAME ...] [--within 100]

One JSON line each, also in OUT/cuda.jsonl. `tests/test_cuda.py` makes tests of them where there is a GPU. With
`--pretend` they run on the pretended device of `tests/second_device.py`, but for those that need kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cuda.nights import bulk_lists, child_process, exported, night, presets_compared
from tests.cuda.ranking import ranks_and_lists
from tests.cuda.training import BODIES, body, compiled, interrupted, label_heads, what_reads_is_found_out

CHECKS: dict[str, Callable[[Path], Any]] = {
    "ranks_and_lists": ranks_and_lists,
    "night": night,
    **{f"{of[0]}:{of[1]}": (lambda folder, of=of: body(*of, folder)) for of in BODIES},
    "what_reads_is_found_out": what_reads_is_found_out,
    "interrupted": interrupted,
    "label_heads": label_heads,
    "bulk_lists": bulk_lists,
    "exported": exported,
    "child_process": child_process,
    "presets_compared": presets_compared,
    "compiled bert4rec:masked": lambda folder: compiled("bert4rec", "masked", "sampled_softmax", folder),
    "compiled sasrec:causal": lambda folder: compiled("sasrec", "causal", "full_softmax", folder),
}  # fmt: skip
NEED_KERNELS = (
    "ranks_and_lists",
    "what_reads_is_found_out",
    "compiled bert4rec:masked",
    "compiled sasrec:causal",
    "child_process",
)
