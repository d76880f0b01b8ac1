"""A label that is 0 or 1: bought or not, liked or not.

D width, N predictions.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.config import ModelConfig
from modeling.evaluation.metrics import auc, calibration_error, log_loss
from modeling.heads._label import At, LabelHead
from schemas.errors import InputError
from schemas.features import FeatureSchema


class Binary(LabelHead):
    """The probability that a label is 1: the logistic function of a linear layer, learned by cross-entropy."""

    metrics: ClassVar = {"auc": auc, "log_loss": log_loss, "calibration_error": calibration_error}

    def __init__(self, label: str, config: ModelConfig, schema: FeatureSchema, *, at: At = None) -> None:
        super().__init__(label, config, schema, at)

    @torch.no_grad()
    def begin_at(self, value_N: Tensor) -> None:
        """The bias becomes the log odds of the base rate, with half a case more of either kind."""
        ones = value_N.sum()
        self.decide.bias.copy_(((ones + 0.5) / (len(value_N) - ones + 0.5)).log())

    def error(self, score_N: Tensor, value_N: Tensor) -> Tensor:
        """-log p(label), [N]."""
        return F.binary_cross_entropy_with_logits(score_N, value_N, reduction="none")

    def predict(self, h_ND: Tensor) -> Tensor:
        """Probabilities of 1."""
        return self.score(h_ND).sigmoid()

    def check(self, value_N: Tensor) -> None:
        """Labels are 0 or 1."""
        other_values = value_N[(value_N != 0) & (value_N != 1)].unique().tolist()
        if other_values:
            shown = ", ".join(f"{value:g}" for value in other_values[:5]) + (", ..." if len(other_values) > 5 else "")
            raise InputError(
                f"heads.{self.label}: a binary label is 0 or 1, these sessions have {shown}. Make one with the step derive, "
                "or take the head regression."
            )
