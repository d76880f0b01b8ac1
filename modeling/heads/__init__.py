"""What is predicted from a hidden state; one file each, found by name.

B rows, L places, D width, N predictions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from modeling.attention import Direction
from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.items import ItemVectors
from schemas.features import FeatureSchema


class Head(nn.Module, ABC):
    """One prediction and its loss. Options are keyword-only parameters of `__init__`."""

    def __init__(self, label: str, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        self.label = label

    def keep_to(self, direction: Direction) -> None:
        """Called once, when all parts are built, with what states see. Raise InputError where they would see the answer."""

    @abstractmethod
    def loss(self, h_BLD: Tensor, batch: Batch, items: ItemVectors) -> Tensor:
        """Weighted mean loss of the predictions that are asked for; a zero with a gradient where none is."""
