"""What every head on a label obeys, in a tiny model: a number for each state, learned where the label is known.

D width, N predictions.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flows.laws import Law, models, require
from flows.laws.models import LABEL, NUM_ITEMS, Trial, chains
from modeling.heads._label import LabelHead
from modeling.model import SequenceModel


def a_state_gets_one_number(trial: Trial) -> None:
    """Begun at the training labels, it predicts a finite float32 number for each state, and measures it."""
    if not (head := _begun(trial.model())):
        return
    value_N = chains(30, NUM_ITEMS).labels[LABEL]
    with torch.no_grad():
        predicted_N = head.predict(torch.randn(30, 16, generator=torch.Generator().manual_seed(0)))
    require(list(predicted_N.shape) == [30], f"For 30 states the shape is {list(predicted_N.shape)}.")
    require(predicted_N.dtype == torch.float32, f"They are {predicted_N.dtype}.")
    require(bool(predicted_N.isfinite().all()), "They are not finite.")
    measured = head.measure(predicted_N, value_N)
    require(bool(measured), "It measures nothing: name the `metrics`; the first chooses the best weights.")
    for name, value in measured.items():
        require(isinstance(value, float), f"Its metric {name} is {type(value).__name__}, not a float.")


def a_mistake_costs_its_own_prediction(trial: Trial) -> None:
    """Its error is one number for each prediction, from its own score and label."""
    if not (head := _begun(trial.model())):
        return
    score_N, value_N = torch.randn(30, generator=torch.Generator().manual_seed(0)), chains(30, NUM_ITEMS).labels[LABEL]
    error_N = head.error(score_N, value_N)
    require(list(error_N.shape) == [30], f"For 30 predictions the shape is {list(error_N.shape)}: take no mean.")
    alone_N = torch.cat([head.error(score_N[[n]], value_N[[n]]) for n in range(30)])
    require(torch.allclose(error_N, alone_N, atol=1e-5), "Alone, a prediction costs something else.")


def labels_that_are_missing_change_nothing(trial: Trial) -> None:
    """Predictions whose label is null change nothing: the loss is that of the rest, and 0 where all are null."""
    model = trial.model()
    if not (head := _begun(model)):
        return
    batch = models.batch_of(model)
    h_BLD, all_N = model.encode(batch), batch.labels[LABEL]
    with_label_N = ~all_N.isnan()
    half_N = all_N.masked_fill(torch.arange(len(all_N)) % 2 == 0, torch.nan)
    weight_N = batch.weight_N * ~half_N.isnan()

    def loss_of(labels_N: Tensor, weight_N: Tensor = batch.weight_N) -> Tensor:
        asked = replace(batch, labels={**batch.labels, LABEL: labels_N}, weight_N=weight_N)
        return head.loss(h_BLD, asked, model.inputs.items)

    require(bool(with_label_N.any()), "The objective asks about no label.")
    half, others = float(loss_of(half_N).detach()), float(loss_of(all_N, weight_N / weight_N.sum()).detach())
    require(abs(half - others) < 1e-5, f"It is {half:.6g} instead of {others:.6g}.")
    none = loss_of(torch.full_like(all_N, torch.nan))
    require(float(none.detach()) == 0, f"With no label at all it is {float(none.detach()):.6g}.")
    none.backward()
    gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    require(
        all(bool(gradient.isfinite().all()) for gradient in gradients),
        "With no label at all, gradients are not finite.",
    )


LAWS: tuple[Law, ...] = (
    *models.LAWS,
    a_state_gets_one_number,
    a_mistake_costs_its_own_prediction,
    labels_that_are_missing_change_nothing,
)


def _begun(model: SequenceModel) -> LabelHead | None:
    """The head on a label, begun at the labels of some sessions; None for a head that predicts something else."""
    head = model.label_heads.get(LABEL)
    if head:
        head.start(chains(30, NUM_ITEMS))
    return head
