"""Sequence encoders, found by name: one file each, and the model types of transformers that are rows of `_table.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from modeling.attention import Direction, Layout
from modeling.config import BodyConfig


class Body(nn.Module, ABC):
    """Maps x_BLD and the layout of its places to hidden states h_BLD, by these laws, which tests/laws holds every body to:

    a place is changed by its own session alone, not by neighbours in the row or padding; with direction `causal`, by itself
    and what came before; the same weights and inputs give the same states. Options are keyword-only parameters of `__init__`.
    """

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal"})  # the layouts it can keep to
    packed: ClassVar[bool] = True  # takes several sessions in a row; else each row holds one, padded on the right
    flat: ClassVar[bool] = (
        False  # looks at other places through `attend`, or the blocks of a layout, alone: rows may be long
    )
    rotary: ClassVar[bool] = False  # can rotate queries and keys by position (inputs.positions: rotary)
    ordered: ClassVar[bool] = False  # sees order without positions at the input

    def __init__(self, config: BodyConfig, rotary: bool) -> None:
        super().__init__()
        self.config, self.rotates = config, rotary

    def keep_to(self, direction: Direction) -> None:
        """Called once, after it is built, with the direction it is used in: weights of other directions are to be frozen."""

    @abstractmethod
    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        """Hidden states h_BLD."""
