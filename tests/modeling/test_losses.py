"""Losses against the plain formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modeling.losses.full_softmax import CHUNK_BYTES, full_softmax


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
