"""Polars in memory, on the CPU or, the same plans, on a GPU through cuDF."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from preprocessing.features.feature import FittedFeature, transform
from preprocessing.frames import CPU, Target, collect, collect_all
from schemas.errors import InputError


class PolarsEngine:
    """Runs the plans of features as they are."""

    def __init__(self, gpu: bool = False) -> None:
        self.target: Target = _gpu() if gpu else CPU

    def fit(self, rows: pl.DataFrame, features: Sequence[FittedFeature]) -> list[pl.DataFrame]:
        """One plan a feature."""
        return collect_all([feature.partial_fit(rows.lazy()) for feature in features], self.target)

    def transform(self, rows: pl.DataFrame, features: Sequence[FittedFeature], keep: Sequence[str]) -> pl.DataFrame:
        """One plan for all."""
        return collect(transform(rows.lazy(), features, keep), self.target)


def _gpu() -> pl.GPUEngine:
    """cuDF's in-memory engine with plain device memory: what does not fit fails instead of crawling.

    Raises:
        InputError: where cudf-polars or a GPU is missing.
    """
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
