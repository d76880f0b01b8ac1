"""What is predicted from a hidden state; one file each, found by name.

B rows, L places, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from modeling.batches import Batch
from modeling.config import ModelConfig
from modeling.inputs import ItemVectors
from schemas.features import FeatureSchema


class Head(nn.Module, ABC):
    """One prediction and its loss. Options are keyword-only parameters of `__init__`."""

    def __init__(self, label: str, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        self.label = label

    @abstractmethod
    def loss(self, h_BLD: Tensor, batch: Batch, items: ItemVectors) -> Tensor:
        """Mean loss over the places where something is asked; a zero with a gradient where nothing is."""
