"""Polars in memory, on the CPU or, the same plans, on a GPU through cuDF."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import polars as pl

from preprocessing import frames
from preprocessing.features.feature import FittedFeature
from preprocessing.features.plans import fit_plans, transform
from preprocessing.frames import CPU, Rows, Target, collect_all
from schemas.errors import InputError

CPU_ROWS = 2_500_000  # rows of a bucket on the CPU: about half a gigabyte on the way
GPU_ROWS = 100_000_000  # at most, however large the device: a column of lists must stay below 2^31 values
COPIES = 20  # of a bucket's rows on a GPU: those of the largest plan, a sort among them, and those that wait for the next one


class PolarsEngine:
    """Runs the plans of features as they are."""

    def __init__(self, gpu: bool = False) -> None:
        self.gpu = gpu
        if gpu:
            _free_bytes()

    @cached_property
    def target(self) -> Target:
        """Where plans run. Memory of a GPU is taken when it is first asked for: not by a process that only has workers."""
        return _gpu() if self.gpu else CPU

    def bucket_rows(self, bytes_a_row: int) -> int:
        """Rows of a bucket: few on a CPU, where several buckets share a memory; on a GPU as many as its plans can hold."""
        if not self.gpu:
            return CPU_ROWS
        return max(CPU_ROWS, min(GPU_ROWS, _free_bytes() // (bytes_a_row * COPIES)))

    def fit(self, rows: Rows, features: Sequence[FittedFeature]) -> list[pl.DataFrame]:
        """One plan a feature."""
        return collect_all(fit_plans(rows, features), self.target)

    def transform(self, rows: Rows, features: Sequence[FittedFeature], keep: Sequence[str]) -> Rows:
        """One plan for all."""
        return frames.keep(transform(rows, features, keep), self.target)


@cache
def _gpu() -> pl.GPUEngine:
    """cuDF's in-memory engine with plain device memory: what does not fit fails instead of crawling. One a process."""
    return pl.GPUEngine(
        executor="in-memory",
        raise_on_fail=True,
        memory_resource=memory_resource(),
        parquet_options={"chunked": True},
    )


def memory_resource() -> Any:
    """CUDA's own pool, which keeps what plans give back: never managed memory, which would move pages in silence."""
    import rmm

    return rmm.mr.CudaAsyncMemoryResource()


@cache
def _free_bytes() -> int:
    """Device memory that was free when this process first asked, before its own pool held any.

    Raises:
        InputError: where cudf-polars or a GPU is missing.
    """
    how = "Run on the CPU with --engine cpu, or install the extra `gpu` on a machine with an NVIDIA GPU."
    try:
        import cudf_polars  # noqa: F401
        import rmm
        from rmm._cuda.gpu import getDevice

        getDevice()
        return int(rmm.mr.available_device_memory()[0])
    except ImportError as error:
        raise InputError(f"--engine gpu needs cudf-polars ({error}). {how}") from None
    except Exception as error:  # rmm raises its own kinds when there is no driver or no device
        raise InputError(f"--engine gpu finds no GPU ({error}). {how}") from None
