"""What Polars' GPU engine would refuse of a plan: the plan is translated as for a GPU and not run, so none is needed.

An accepted plan is one the engine does not hand to the CPU; that its numbers are right, only a run on a GPU can show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import polars as pl
import pytest

from preprocessing.frames import together

GPU = pl.GPUEngine(executor="in-memory", raise_on_fail=True)


def untranslatable(plan: pl.LazyFrame) -> list[str]:
    """Why the in-memory GPU engine would not take this plan as it is after optimisation; empty when it takes it all.

    Skips the test that asks where cudf-polars is not installed; where it is installed but broken, the test fails.
    """
    if find_spec("cudf_polars") is None:
        pytest.skip("cudf-polars is not installed; it needs no GPU for this, but an environment of its own")
    from cudf_polars import Translator

    translator = Translator(plan._ldf.visit(), GPU)
    translator.translate_ir()  # collects what it cannot translate, raises nothing
    return sorted({f"{type(error).__name__}: {error}" for error in translator.errors})


def translating(
    refused: list[str], trips: list[int] | None = None
) -> Callable[[Sequence[pl.LazyFrame], object], list[pl.DataFrame]]:
    """For the place of `preprocessing.frames.run`: runs every plan on the CPU, and notes why a GPU would refuse it.

    `trips` gets, of each trip to a GPU, how many plans went there together.
    """

    def run(plans: Sequence[pl.LazyFrame], target: object) -> list[pl.DataFrame]:
        if isinstance(target, pl.GPUEngine) and plans:
            refused.extend(untranslatable(plans[0] if len(plans) == 1 else together(plans)))
            if trips is not None:
                trips.append(len(plans))
        return pl.collect_all(list(plans), engine="in-memory")

    return run
