"""Cross-entropy over a whole catalogue whose logits are never all there: loss and gradients are made together, in chunks.

Products are taken in bfloat16 under autocast or when states are given so. All else is float32: the log-sum-exp, the loss,
the sums of gradients over chunks. The catalogue alone decides how large a chunk is, so a batch takes the same path with any
questions in it, and the host reads nothing. (torch's own F.linear_cross_entropy has no smoothing and no weights, runs in
float32 under autocast, and is only there from torch 2.13 on.)

N predictions, C of them in a chunk, D width, V items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Of float32 logits at a time. On a CPU they are passed over six times, which is faster where they stay in its caches.
CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**31}
LEAST_ROWS = 16  # fewer make a product wait for memory


def chunked_cross_entropy(
    h_ND: Tensor, items_VD: Tensor, bias_V: Tensor | None, target_N: Tensor, weight_N: Tensor, smoothing: float
) -> Tensor:
    """sum_n w[n] (log sum_v exp s[n, v] - (1 - e) s[n, target] - e mean_v s[n, v]) with s = h . items + bias; a scalar.

    In float32, of float64 states in float64. States, items and bias get gradients, which cannot be differentiated again.
    """
    tensors: tuple[Tensor | None, ...] = (h_ND, items_VD, bias_V)
    given = (target_N, weight_N, smoothing, type_of_products(h_ND))
    loss: Tensor
    if torch.compiler.is_compiling():
        loss = _whole(*tensors, *given)[0]
        return loss
    if not torch.is_grad_enabled():  # an autograd function cannot see that
        tensors = tuple(tensor if tensor is None else tensor.detach() for tensor in tensors)
    loss = _CrossEntropy.apply(*tensors, *given)
    return loss


def type_of_products(h_ND: Tensor) -> torch.dtype:
    device = h_ND.device.type
    wanted = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else h_ND.dtype
    return wanted if wanted in (torch.bfloat16, torch.float64) else torch.float32


class ByChunks(torch.autograd.Function):
    """A loss of states, items and a bias whose gradients, for a loss of 1, are made in `forward`; `backward` scales them."""

    @staticmethod
    def keep(ctx: Any, gradients: list[Tensor | None], *tensors: Tensor | None) -> None:
        """The gradients of the first arguments, for `backward`."""
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in tensors]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        scaled = _scaled(ctx, slope)
        return *scaled, *[None] * (len(ctx.needs_input_grad) - len(scaled))


def _scaled(ctx: Any, slope: Tensor) -> list[Tensor | None]:
    """The gradients that were kept, for a loss of `slope`."""
    pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
    return [None if gradient is None else (gradient * slope).to(dtype) for gradient, dtype in pairs]


class _CrossEntropy(ByChunks):
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
        tensors = (h_ND, items_VD, bias_V)
        loss, gradients = _loss_and_gradients(*tensors, target_N, weight_N, smoothing, dtype, ctx.needs_input_grad)
        ByChunks.keep(ctx, gradients, *tensors)
        return loss


def _loss_and_gradients(
    h_ND: Tensor,
    items_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    weight_N: Tensor,
    smoothing: float,
    dtype: torch.dtype,
    wanted: Sequence[bool] = (True, True, True),
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss, and the gradients of states, items and bias as far as they are wanted."""
    with torch.autocast(h_ND.device.type, enabled=False):
        weight_N = weight_N.to(torch.promote_types(dtype, torch.float32))
        rows = rows_of_chunk(h_ND, len(items_VD))

        def slopes(s_CV: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
            return _slopes(s_CV, target_N[chunk], smoothing)

        gradients, loss_N = in_chunks(h_ND, items_VD, bias_V, weight_N, slopes, rows, dtype, wanted=wanted)
        loss = loss_N.new_zeros(())
        for weight_C, loss_C in zip(weight_N.split(rows), loss_N.split(rows), strict=True):
            loss += weight_C @ loss_C
        if smoothing:
            _add_smoothing(gradients, h_ND, items_VD, weight_N, smoothing)
    return loss, gradients


@torch.library.custom_op("overnight::chunked_cross_entropy", mutates_args=())
def _whole(
    h_ND: Tensor,
    items_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    weight_N: Tensor,
    smoothing: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss and its gradients, as one operation that `torch.compile` does not look into.

    With what it made of the autograd function on a GPU (torch 2.11) the loss was right and no weight moved.
    """
    loss, (grad_ND, grad_VD, grad_V) = _loss_and_gradients(
        h_ND, items_VD, bias_V, target_N, weight_N, smoothing, dtype, (True, True, bias_V is not None)
    )
    assert grad_ND is not None and grad_VD is not None
    return loss, grad_ND, grad_VD, loss.new_empty(0) if grad_V is None else grad_V


@_whole.register_fake
def _shapes_of_whole(h_ND: Tensor, items_VD: Tensor, bias_V: Tensor | None, *given: Any) -> tuple[Tensor, ...]:
    dtype: torch.dtype = given[-1]
    wide = torch.promote_types(dtype, torch.float32)
    tensors = (h_ND, items_VD, h_ND.new_empty(0) if bias_V is None else bias_V)
    grad_ND, grad_VD, grad_V = (torch.empty_like(tensor, dtype=wide) for tensor in tensors)
    return h_ND.new_empty((), dtype=wide), grad_ND, grad_VD, grad_V


def _keep_of_whole(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    h_ND, items_VD, bias_V, *_ = inputs
    gradients = (*output[1:3], None if bias_V is None else output[3])
    ctx.mark_non_differentiable(*output[1:])
    ByChunks.keep(ctx, list(gradients), h_ND, items_VD, bias_V)


def _back_of_whole(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *_scaled(ctx, slope), None, None, None, None


_whole.register_autograd(_back_of_whole, setup_context=_keep_of_whole)


def rows_of_chunk(h_ND: Tensor, num_items: int) -> int:
    """C."""
    return max(LEAST_ROWS, CHUNK_BYTES[h_ND.device.type] // (4 * num_items))


def in_chunks(
    h_ND: Tensor,
    items_VD: Tensor,
    bias_V: Tensor | None,
    weight_N: Tensor,
    slopes: Callable[[Tensor, slice], tuple[Tensor, Tensor]],
    rows: int,
    dtype: torch.dtype,
    *,
    wanted: Sequence[bool] = (True, True, True),
) -> tuple[list[Tensor | None], Tensor]:
    """The gradients of states, items and bias, as far as they are `wanted`, and the loss of each prediction, [N].

    `slopes` makes of the scores of a chunk what `_slopes` says.
    """
    gradients = [
        torch.zeros_like(tensor, dtype=weight_N.dtype) if tensor is not None and asked else None
        for tensor, asked in zip((h_ND, items_VD, bias_V), wanted, strict=False)
    ]
    read_VD, loss_N = items_VD.to(dtype), torch.zeros_like(weight_N)
    room_CV = weight_N.new_empty(min(rows, len(h_ND)), len(items_VD))
    for first in range(0, len(h_ND), rows):
        chunk = slice(first, first + rows)
        h_CD = h_ND[chunk].to(dtype)
        s_CV = _scores(h_CD, read_VD, bias_V, room_CV[: len(h_CD)])
        loss_N[chunk], total_C = slopes(s_CV, chunk)
        _add(gradients, chunk, s_CV, h_CD, read_VD, weight_N[chunk] / total_C)
    return gradients, loss_N


def _scores(h_CD: Tensor, read_VD: Tensor, bias_V: Tensor | None, room_CV: Tensor) -> Tensor:
    """h . items + bias, written into `room_CV`."""
    if h_CD.dtype == room_CV.dtype:
        torch.mm(h_CD, read_VD.T, out=room_CV)
    else:
        room_CV.copy_(h_CD @ read_VD.T)
    return (
        room_CV if bias_V is None else room_CV.add_(bias_V)
    )  # torch.addmm takes longer: it copies the bias to each row


def _slopes(s_CV: Tensor, target_C: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The loss of each prediction, and z[c] = sum_v exp(s[c, v] - max s[c]).

    Scores become z (softmax(s) - (1 - e) [target]) in place: the slope of the loss but for - e / V, which is the same at
    all items and added once for all chunks, and times z, which is divided by where tensors are narrow.
    """
    place_C1 = target_C.unsqueeze(1)
    most_C1 = s_CV.amax(1, keepdim=True)
    right_C1 = s_CV.gather(1, place_C1)
    mean_C1 = s_CV.mean(1, keepdim=True) if smoothing else 0.0
    total_C1 = s_CV.sub_(most_C1).exp_().sum(1, keepdim=True)
    s_CV.scatter_add_(1, place_C1, -(1 - smoothing) * total_C1)
    loss_C1 = most_C1 + total_C1.log() - (1 - smoothing) * right_C1 - smoothing * mean_C1
    return loss_C1.squeeze(1), total_C1.squeeze(1)


def _add(
    gradients: list[Tensor | None], chunk: slice, s_CV: Tensor, h_CD: Tensor, read_VD: Tensor, share_C: Tensor
) -> None:
    """Add what a chunk's slopes, times `share_C`, give to the gradients of states, items and bias."""
    grad_ND, grad_VD, grad_V = gradients
    slope_CV, share_C1 = s_CV.to(h_CD.dtype), share_C.unsqueeze(1)
    if grad_ND is not None:
        torch.mul(slope_CV @ read_VD, share_C1, out=grad_ND[chunk])
    if grad_VD is not None:
        scaled_CD = (h_CD * share_C1).to(h_CD.dtype)
        if slope_CV.dtype == grad_VD.dtype:
            grad_VD.addmm_(slope_CV.T, scaled_CD)
        else:
            grad_VD += slope_CV.T @ scaled_CD
    if grad_V is not None:
        grad_V.addmv_(s_CV.T, share_C)


def _add_smoothing(
    gradients: list[Tensor | None], h_ND: Tensor, items_VD: Tensor, weight_N: Tensor, smoothing: float
) -> None:
    """Add the part - e / V of all slopes."""
    grad_ND, grad_VD, grad_V = gradients
    each = smoothing / len(items_VD)
    if grad_ND is not None:
        grad_ND -= each * torch.outer(weight_N, items_VD.sum(0, dtype=weight_N.dtype))
    if grad_VD is not None:
        grad_VD -= each * torch.mv(h_ND.to(weight_N.dtype).T, weight_N)
    if grad_V is not None:
        grad_V -= each * weight_N.sum()
