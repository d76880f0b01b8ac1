"""Cross-entropy over a whole catalogue without ever holding its logits: loss and gradients are made chunk by chunk, forward.

Products are taken in bfloat16 under autocast or when states are given so, all else is float32: a chunk's logits, their
log-sum-exp, the loss, and the sums of gradients over chunks. Chunks are sized by the catalogue alone, so that a batch takes
the same path whatever it asks. Nothing is read by the host.

N predictions, C of them in a chunk, D width, V items.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**28}  # of float32 logits at a time: on a CPU what its caches hold
LEAST_ROWS = 16  # a product of fewer rows is slower than its memory


def chunked_cross_entropy(
    h_ND: Tensor, items_VD: Tensor, bias_V: Tensor | None, target_N: Tensor, weight_N: Tensor, smoothing: float
) -> Tensor:
    """sum_n w[n] (log sum_v exp(s[n, v]) - (1 - e) s[n, target] - e mean_v s[n, v]) of s = h . items + bias; a scalar.

    float32, or float64 of float64 states. Gradients reach h, items and bias; the loss can be differentiated once.
    """
    loss: Tensor = _Chunked.apply(h_ND, items_VD, bias_V, target_N, weight_N, smoothing, _products_in(h_ND))
    return loss


def _products_in(h_ND: Tensor) -> torch.dtype:
    """The type in which matrices are multiplied: bfloat16 where autocast or the states say so."""
    device = h_ND.device.type
    given = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else h_ND.dtype
    return given if given in (torch.bfloat16, torch.float64) else torch.float32


class _Chunked(torch.autograd.Function):
    """Gradients are scaled by that of the loss when they are asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        h_ND: Tensor,
        items_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        weight_N: Tensor,
        smoothing: float,
        dtype: torch.dtype,
    ) -> Tensor:
        sums = torch.promote_types(dtype, torch.float32)
        num_items = len(items_VD)
        rows = max(LEAST_ROWS, CHUNK_BYTES[h_ND.device.type] // (4 * num_items))
        with torch.autocast(h_ND.device.type, enabled=False):
            read_VD, weight_N = items_VD.to(dtype), weight_N.to(sums)
            mean_D = items_VD.mean(0, dtype=sums) if smoothing else None
            loss = torch.zeros((), dtype=sums, device=h_ND.device)
            grad_VD = torch.zeros_like(items_VD, dtype=sums) if ctx.needs_input_grad[1] else None
            grad_V = torch.zeros_like(bias_V, dtype=sums) if bias_V is not None else None
            grad_chunks = []
            for h_CD, target_C, weight_C in zip(
                h_ND.split(rows), target_N.split(rows), weight_N.split(rows), strict=True
            ):
                h_CD = h_CD.to(dtype)
                s_CV = _product(h_CD, read_VD.T)
                if bias_V is not None:
                    s_CV = s_CV.add_(bias_V)
                place_C1 = target_C.unsqueeze(1)
                most_C1 = s_CV.amax(1, keepdim=True)
                target_C1 = s_CV.gather(1, place_C1)
                mean_C = s_CV.mean(1) if smoothing else 0.0
                p_CV = s_CV.sub_(most_C1).exp_()  # not yet divided by its sum, which is cheaper done to what is narrow
                total_C1 = p_CV.sum(1, keepdim=True)
                lse_C = (most_C1 + total_C1.log()).squeeze(1)
                loss_C = lse_C - (1 - smoothing) * target_C1.squeeze(1) - smoothing * mean_C
                loss += (weight_C * loss_C).sum()
                # d loss / d s = w (softmax - (1 - e) [target] - e / V); the last term is added outside of the product.
                p_CV.scatter_add_(1, place_C1, -(1 - smoothing) * total_C1)
                scale_C1 = weight_C.unsqueeze(1) / total_C1
                read_CV = p_CV.to(dtype)
                grad_CD = _product(read_CV, read_VD) * scale_C1
                if mean_D is not None:
                    grad_CD -= smoothing * weight_C.unsqueeze(1) * mean_D
                grad_chunks.append(grad_CD.to(h_ND.dtype))
                scaled_CD = h_CD * scale_C1.to(dtype)
                if grad_VD is not None:
                    grad_VD += _product(read_CV.T, scaled_CD)
                if grad_V is not None:
                    grad_V += scale_C1.squeeze(1) @ p_CV
            if smoothing:
                if grad_VD is not None:
                    grad_VD -= smoothing / num_items * (weight_N @ h_ND.to(sums))
                if grad_V is not None:
                    grad_V -= smoothing / num_items * weight_N.sum()
        ctx.save_for_backward(
            torch.cat(grad_chunks),
            grad_VD.to(items_VD.dtype) if grad_VD is not None else None,
            grad_V.to(bias_V.dtype) if grad_V is not None and bias_V is not None else None,
        )
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [one * grad.to(one.dtype) if one is not None else None for one in ctx.saved_tensors]
        return *scaled, None, None, None, None


def _product(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product in float32 at least, of factors in theirs."""
    return (left @ right).to(torch.promote_types(left.dtype, torch.float32))
