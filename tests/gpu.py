"""What Polars' GPU engine would refuse of a plan: the plan is translated as for a GPU and not run, so none is needed.

An accepted plan is one the engine does not hand to the CPU; that its numbers are right, only a run on a GPU can show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import polars as pl
import pytest

from preprocessing.frames import Rows, Target, on, to_host, together

GPU = pl.GPUEngine(executor="in-memory", raise_on_fail=True)


def translator_of(plan: pl.LazyFrame) -> Any:
    """cudf-polars' translator of a plan as it is after optimisation.

    Skips the test that asks where cudf-polars is not installed; where it is installed but broken, the test fails.
    """
    if find_spec("cudf_polars") is None:
        pytest.skip("cudf-polars is not installed; it needs no GPU for this, but an environment of its own")
    from cudf_polars import Translator

    return Translator(plan._ldf.visit(), GPU)


def translated(plan: pl.LazyFrame) -> Any:
    """The plan as the in-memory GPU engine would run it."""
    return translator_of(plan).translate_ir()


def untranslatable(plan: pl.LazyFrame) -> list[str]:
    """Why the in-memory GPU engine would not take this plan; empty when it takes it all."""
    translator = translator_of(plan)
    translator.translate_ir()  # collects what it cannot translate, raises nothing
    return sorted({f"{type(error).__name__}: {error}" for error in translator.errors})


def translating(refused: list[str], trips: list[int] | None = None) -> Callable[..., list[Rows]]:
    """For the place of `preprocessing.frames.run`: runs every plan on the CPU, and notes why a GPU would refuse it.

    Rows that would stay on the GPU stay here, as `frames.on` keeps them: plans over them are translated as those of a GPU are.
    `trips` gets, of each trip to a GPU, how many plans went there together.
    """

    def run(plans: Sequence[pl.LazyFrame], target: Target, stays: int | None = None) -> list[Rows]:
        if isinstance(target, pl.GPUEngine) and plans:
            refused.extend(untranslatable(plans[0] if len(plans) == 1 else together(plans)))
            if trips is not None:
                trips.append(len(plans))
        made: list[Rows] = [*pl.collect_all(list(plans), engine="in-memory")]
        return [on(target, to_host(rows)) if number == stays else rows for number, rows in enumerate(made)]

    return run
