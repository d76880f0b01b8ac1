"""A model repository for NVIDIA Triton: REPOSITORY/NAME/config.pbtxt and NAME/1/model.onnx."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32", "float64": "TYPE_FP64"}
MOST_HISTORIES = 1024  # that Triton puts into one batch
WAIT_MICROSECONDS = 500  # for more requests, before a batch that is not full is run


class Port(BaseModel):
    """An input or output: N histories, L places, W values where a place has many (as many as are given)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: Literal["int64", "float32", "float64"]
    shape: tuple[str | int, ...]


def write_repository(folder: Path, onnx: Path, dataset: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Write `folder`, with a copy of the ONNX file as version 1 of the model `overnight_DATASET`."""
    name = f"overnight_{dataset}"
    (folder / name / "1").mkdir(parents=True)
    shutil.copy2(onnx, folder / name / "1" / "model.onnx")
    (folder / name / "config.pbtxt").write_text(config_of(name, inputs, outputs))


def config_of(name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """config.pbtxt: requests that wait are batched; dimensions that are free are -1."""
    parts = [
        f'name: "{name}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {MOST_HISTORIES}",
        *(_port("input", port) for port in inputs),
        *(_port("output", port) for port in outputs),
        f"dynamic_batching {{ max_queue_delay_microseconds: {WAIT_MICROSECONDS} }}",
    ]
    return "\n".join(parts) + "\n"


def _port(kind: str, port: Port) -> str:
    dims = [size if isinstance(size, int) else -1 for size in port.shape[1:]]
    # A request has at least one dimension behind that of the batch; the model has none there.
    reshape = "" if dims else ", reshape: { shape: [ ] }"
    return f'{kind} [ {{ name: "{port.name}", data_type: {TYPES[port.dtype]}, dims: {dims or [1]}{reshape} }} ]'
