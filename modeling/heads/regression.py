"""A label that is a number: seconds, money, stars.

D width, N predictions.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from modeling.config import ModelConfig
from modeling.evaluation.metrics import mae, rmse
from modeling.heads._label import At, LabelHead
from schemas.errors import InputError
from schemas.features import FeatureSchema


class Regression(LabelHead):
    """A number in the label's own unit: a linear layer, scaled by the mean and deviation of the training labels."""

    metrics: ClassVar = {"rmse": rmse, "mae": mae}

    def __init__(
        self,
        label: str,
        config: ModelConfig,
        schema: FeatureSchema,
        *,
        at: At = None,
        loss: Annotated[
            Literal["mse", "huber"], Field(description="Squared error; or absolute beyond one standard deviation.")
        ] = "mse",
        log: Annotated[
            bool, Field(description="Learn log(1 + label), for amounts and durations of which a few are huge.")
        ] = False,
    ) -> None:
        super().__init__(label, config, schema, at)
        self.error_of = F.huber_loss if loss == "huber" else F.mse_loss
        self.log = log
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.mean: Tensor
        self.std: Tensor

    def check(self, value_N: Tensor) -> None:
        """Labels are finite, and with `log` not negative."""
        if not value_N.isfinite().all():
            raise InputError(f"heads.{self.label}: the label has infinite values. Make them null with the step derive.")
        if self.log and (value_N < 0).any():
            raise InputError(
                f"heads.{self.label}: `log` needs labels from 0 on, these sessions have {value_N.min():g}."
            )

    def begin_at(self, value_N: Tensor) -> None:
        """Keep the mean and the standard deviation of the labels."""
        scaled_N = self._to_scale(value_N).double()
        std = scaled_N.std(correction=0)
        self.mean.copy_(scaled_N.mean())
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def error(self, score_N: Tensor, value_N: Tensor) -> Tensor:
        """Squared or Huber error, in standard deviations of the training labels, [N]."""
        return self.error_of(score_N, (self._to_scale(value_N) - self.mean) / self.std, reduction="none")

    def predict(self, h_ND: Tensor) -> Tensor:
        """Numbers in the label's unit; with `log`, the mean of the logarithm taken back, which is below the mean."""
        scaled_N = self.score(h_ND) * self.std + self.mean
        return scaled_N.expm1() if self.log else scaled_N

    def _to_scale(self, value_N: Tensor) -> Tensor:
        return value_N.log1p() if self.log else value_N
