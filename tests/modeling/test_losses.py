"""Losses against the plain formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modeling.config import TrainingConfig
from modeling.fitting import make_schedule
from modeling.losses.full_softmax import CHUNK_BYTES, full_softmax
from tests.conftest import model_of, random_sessions


@pytest.mark.parametrize("num_predictions", [3, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_chunked_softmax_equals_the_plain_one(
    num_predictions: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 50 * 200 * 4)  # six chunks
    torch.manual_seed(0)
    h_ND = torch.randn(num_predictions, 8, requires_grad=True)
    items_VD = torch.randn(200, 8, requires_grad=True)
    bias_V = torch.randn(200, requires_grad=True) if bias else None
    target_N = torch.randint(0, 200, (num_predictions,))
    wanted = [tensor for tensor in (h_ND, items_VD, bias_V) if tensor is not None]
    found = full_softmax(h_ND, items_VD, bias_V, target_N)
    plain = F.cross_entropy(F.linear(h_ND, items_VD, bias_V), target_N)
    torch.testing.assert_close(found, plain)
    for one, other in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(plain, wanted), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_mixed_precision_gives_the_same_loss_within_a_per_cent() -> None:
    """bf16 as on a GPU, through the whole model: attention, bias, chunked softmax, gradients."""
    model = model_of("sasrec", num_items=300, output_bias=True).train()
    batch = make_schedule(model, random_sessions(100, 300), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    model.eval()
    plain = model(**batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**batch)["loss"]
    mixed.backward()
    torch.testing.assert_close(mixed.float(), plain, rtol=0.01, atol=0)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
