"""Losses against the plain formula, and what every sampled loss must obey."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling import losses
from modeling.config import TrainingConfig
from modeling.losses.bce import bce
from modeling.losses.bpr_max import bpr_max
from modeling.losses.gbce import gbce
from modeling.losses.sampled_softmax import sampled_softmax
from modeling.training.schedule import make_schedule
from schemas import plugins
from schemas.errors import InputError
from tests.conftest import model_of, random_sessions

SAMPLED = [name for name in plugins.names(losses) if losses.is_sampled(plugins.find(losses, name))]
every_sampled_loss = pytest.mark.parametrize("loss", [plugins.find(losses, name) for name in SAMPLED], ids=SAMPLED)
NUM_ITEMS = 30
INF = float("inf")


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _weights(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def plain_sampled_softmax(right: float, others: list[float]) -> float:
    return -math.log(math.exp(right) / (math.exp(right) + sum(math.exp(score) for score in others)))


def plain_bce(right: float, others: list[float], beta: float = 1.0) -> float:
    told = -beta * math.log(_sigmoid(right)) - sum(math.log(1 - _sigmoid(score)) for score in others)
    return told / (1 + len(others))


def plain_gbce(right: float, others: list[float]) -> float:
    alpha, calibration = len(others) / (NUM_ITEMS - 1), 0.75
    return plain_bce(right, others, alpha * (calibration * (1 - 1 / alpha) + 1 / alpha) if others else 1 - calibration)


def plain_bpr(right: float, others: list[float]) -> float:
    return sum(-math.log(_sigmoid(right - score)) for score in others) / max(len(others), 1)


def plain_bpr_max(right: float, others: list[float], regularisation: float = 1.0) -> float:
    if not others:
        return 0.0
    pairs = list(zip(_weights(others), others, strict=True))
    ahead = sum(weight * _sigmoid(right - score) for weight, score in pairs)
    return -math.log(ahead) + regularisation * sum(weight * score**2 for weight, score in pairs)


def plain_top1_max(right: float, others: list[float]) -> float:
    weights = _weights(others)
    return sum(
        weight * (_sigmoid(score - right) + _sigmoid(score**2)) for weight, score in zip(weights, others, strict=True)
    )


def some_scores(rows: int = 6, count: int = 5) -> tuple[Tensor, Tensor]:
    """Scores of which some do not count: in the first row all do, in the last none."""
    generator = torch.Generator().manual_seed(1)
    positive_N = 2 * torch.randn(rows, generator=generator, dtype=torch.float64)
    negative_NK = 2 * torch.randn(rows, count, generator=generator, dtype=torch.float64)
    for row in range(rows):
        negative_NK[row, : row * count // max(rows - 1, 1)] = -torch.inf
    return positive_N, negative_NK


@every_sampled_loss
def test_a_sampled_loss_is_its_formula(loss: Callable[..., Tensor]) -> None:
    positive_N, negative_NK = some_scores()
    plain = globals()[f"plain_{loss.__name__}"]
    rows = [
        plain(right, [score for score in others if score > -INF])
        for right, others in zip(positive_N.tolist(), negative_NK.tolist(), strict=True)
    ]
    assert loss(positive_N, negative_NK, NUM_ITEMS).tolist() == pytest.approx(rows, rel=1e-9)


@every_sampled_loss
def test_a_negative_that_does_not_count_might_as_well_not_be_there(loss: Callable[..., Tensor]) -> None:
    positive_N, negative_NK = (score.requires_grad_() for score in some_scores(rows=1))
    wider_NK = torch.cat([negative_NK.new_full((1, 2), -torch.inf), negative_NK, negative_NK.new_full((1, 1), -INF)], 1)
    value, wider = loss(positive_N, negative_NK, NUM_ITEMS).sum(), loss(positive_N, wider_NK, NUM_ITEMS).sum()
    torch.testing.assert_close(wider, value)
    for one, other in zip(*(torch.autograd.grad(x, (positive_N, negative_NK)) for x in (value, wider)), strict=True):
        torch.testing.assert_close(one, other)


@every_sampled_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_nothing_is_ever_nan(loss: Callable[..., Tensor], scale: float, dtype: torch.dtype) -> None:
    """Also where no negative of a row counts, and of scores far beyond what an exponential can take."""
    positive_N, negative_NK = ((scale * score).nan_to_num(neginf=-INF, nan=-INF).to(dtype) for score in some_scores())
    positive_N.requires_grad_(), negative_NK.requires_grad_()
    loss_N = loss(positive_N, negative_NK, NUM_ITEMS)
    assert loss_N.isfinite().all()
    gradient_N, gradient_NK = torch.autograd.grad(loss_N.sum(), (positive_N, negative_NK))
    assert gradient_N.isfinite().all() and gradient_NK.isfinite().all()
    assert (gradient_NK[negative_NK == -INF] == 0).all()


@every_sampled_loss
def test_gradients_are_those_of_finite_differences(loss: Callable[..., Tensor]) -> None:
    positive_N, negative_NK = some_scores()
    counts_NK = negative_NK > -INF

    def of_those_that_count(right_N: Tensor, score_C: Tensor) -> Tensor:
        scattered_NK = torch.full_like(negative_NK, -INF).masked_scatter(counts_NK, score_C)
        return loss(right_N, scattered_NK, NUM_ITEMS)

    assert torch.autograd.gradcheck(
        of_those_that_count, (positive_N.requires_grad_(), negative_NK[counts_NK].requires_grad_())
    )


@every_sampled_loss
def test_a_better_score_of_the_right_item_is_a_lower_loss(loss: Callable[..., Tensor]) -> None:
    positive_N, negative_NK = some_scores(rows=1)
    found = [float(loss(positive_N + ahead, negative_NK, NUM_ITEMS)) for ahead in (-4, -1, 0, 1, 4)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] + 0.1


def test_bce_is_the_mean_over_all_scores() -> None:
    positive_N, negative_NK = torch.randn(7), torch.randn(7, 4)
    answers = torch.zeros(7, 5)
    answers[:, 0] = 1
    mean = F.binary_cross_entropy_with_logits(torch.cat([positive_N.unsqueeze(1), negative_NK], 1), answers)
    torch.testing.assert_close(bce(positive_N, negative_NK, 100).mean(), mean)


def test_fully_calibrated_gbce_is_least_at_the_log_odds_of_probabilities() -> None:
    """Where every other item is a negative one time in ten, scores that are log-odds have no slope on average."""
    probability_V = torch.tensor([0.6, 0.3, 0.09, 0.01])
    score_V = probability_V.logit().requires_grad_()
    expected = torch.zeros(())
    for right, probability in enumerate(probability_V):
        for negative in set(range(4)) - {right}:  # K = 1 of V - 1 = 3: each as likely
            loss = gbce(score_V[right].unsqueeze(0), score_V[negative].view(1, 1), 4, calibration=1.0)
            expected = expected + probability * loss.sum() / 3
    torch.testing.assert_close(torch.autograd.grad(expected, score_V)[0], torch.zeros(4), atol=1e-6, rtol=0)


def test_calibration_changes_nothing_when_all_items_are_negatives() -> None:
    positive_N, negative_NK = torch.randn(7), torch.randn(7, 4)
    torch.testing.assert_close(gbce(positive_N, negative_NK, 5, calibration=0.9), bce(positive_N, negative_NK, 5))
    assert (gbce(positive_N, negative_NK, 50, calibration=0.9) < bce(positive_N, negative_NK, 50)).all()


def test_bpr_max_of_a_hopeless_score_still_has_a_slope() -> None:
    positive_N = torch.tensor([-500.0], requires_grad=True)
    loss = bpr_max(positive_N, torch.tensor([[0.0, -1.0]]), 10, regularisation=0.0)
    assert loss.item() == pytest.approx(500, abs=1)
    assert torch.autograd.grad(loss, positive_N)[0].item() == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_of_sampled_softmax_is_that_of_torch(smoothing: float) -> None:
    positive_N, negative_NK = torch.randn(9), torch.randn(9, 6)
    all_NK = torch.cat([positive_N.unsqueeze(1), negative_NK], 1)
    plain = F.cross_entropy(all_NK, torch.zeros(9, dtype=torch.long), label_smoothing=smoothing, reduction="none")
    found = sampled_softmax(positive_N, negative_NK, 100, label_smoothing=smoothing)
    torch.testing.assert_close(found, plain)
    hidden_NK = torch.cat([negative_NK, torch.full((9, 3), -INF)], 1)
    torch.testing.assert_close(sampled_softmax(positive_N, hidden_NK, 100, label_smoothing=smoothing), plain)


@pytest.mark.parametrize("loss", [*SAMPLED, "full_softmax", {"name": "full_softmax", "label_smoothing": 0.2}])
def test_mixed_precision_gives_the_same_loss_within_two_per_cent(loss: str | dict[str, Any]) -> None:
    """bf16 as on a GPU, through the whole model: attention, bias, chunked softmax, gradients."""
    model = model_of("sasrec", num_items=300, loss=loss, heads={"next_item": {"bias": True}}).train()
    batch = make_schedule(model, random_sessions(100, 300), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    model.eval()
    found = []
    for enabled in (False, True):
        torch.manual_seed(7)  # the same negatives
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(model(batch))
    found[1].backward()
    torch.testing.assert_close(found[1].float(), found[0], rtol=0.02, atol=0)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ({"name": "gbce", "calibration": 1.5}, "calibration.*less than or equal to 1.*1.5"),
        ({"name": "bpr_max", "regularisation": -1}, "regularisation"),
        ({"name": "bce", "calibration": 0.5}, "calibration"),
        ({"name": "gbcee"}, "gbce"),
    ],
)
def test_options_that_do_not_fit_are_refused(loss: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        model_of("sasrec", loss=loss)
