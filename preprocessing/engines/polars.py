"""Polars in memory, on the CPU or, the same plans, on a GPU through cuDF."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from preprocessing.features.chains import Fitted, transform
from schemas.errors import InputError


class PolarsEngine:
    """Runs every plan with Polars; on a GPU a plan that cannot run there is an error, never a quiet return to the CPU."""

    def __init__(self, gpu: bool = False) -> None:
        self.engine: pl.GPUEngine | str = _gpu() if gpu else "in-memory"

    def collect(self, plan: pl.LazyFrame) -> pl.DataFrame:
        """Run one plan in memory."""
        return plan.collect(engine=self.engine)  # type: ignore[arg-type]

    def collect_all(self, plans: Sequence[pl.LazyFrame]) -> list[pl.DataFrame]:
        """Run several plans; on the CPU they share what they have in common."""
        if self.engine == "in-memory":
            return pl.collect_all(list(plans), engine="in-memory")
        return [self.collect(plan) for plan in plans]

    def learn(self, rows: pl.DataFrame, pending: list[Fitted]) -> list[pl.DataFrame]:
        """One plan a feature."""
        return self.collect_all([one.learn(rows.lazy()) for one in pending])

    def encode(self, rows: pl.DataFrame, fitted: list[Fitted], keep: list[str]) -> pl.DataFrame:
        """One plan for all."""
        return self.collect(transform(rows.lazy(), fitted, keep))


def _gpu() -> pl.GPUEngine:
    """cuDF's in-memory engine with plain device memory: what does not fit fails instead of crawling."""
    import os

    os.environ.setdefault("POLARS_GPU_ENABLE_CUDA_MANAGED_MEMORY", "0")
    how = "Run on the CPU with --engine cpu, or install the extra `gpu` on a machine with an NVIDIA GPU."
    try:
        import cudf_polars  # noqa: F401
        from rmm._cuda.gpu import getDevice

        getDevice()
    except ImportError as error:
        raise InputError(f"--engine gpu needs cudf-polars ({error}). {how}") from None
    except Exception as error:  # rmm raises its own kinds when there is no driver or no device
        raise InputError(f"--engine gpu finds no GPU ({error}). {how}") from None
    return pl.GPUEngine(executor="in-memory", raise_on_fail=True, parquet_options={"chunked": True})
