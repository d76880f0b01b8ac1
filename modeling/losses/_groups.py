"""Scores of the right item of each prediction and of the negatives that its group shares.

On a CPU the gradients are made by hand: no score is passed over again to be put in another order, and all vectors that were
read get one gradient, in the order in which they were read.

N predictions, G groups of g predictions, K negatives, E width of item vectors, R = N + G * K vectors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.rows import by_hand


def scores_of_groups(
    q_NE: Tensor, item_RE: Tensor, target_N: Tensor, column_GK: Tensor, shift_GK: Tensor | None, size: int, before: int
) -> tuple[Tensor, Tensor]:
    """Scores q . item of the targets, [N], and of each prediction's negatives, [N, K]; a negative that is the target is -inf.

    `item_RE` are the vectors of the N targets, then those of the negatives `column_GK`; `shift_GK` is added to the scores of
    negatives. Groups have `size` predictions, of which the first `before` are not among these.
    """
    if by_hand(q_NE):
        positive_N, negative_NK = _Scores.apply(q_NE, item_RE, target_N, column_GK, shift_GK, size, before)
        return positive_N, negative_NK
    return _scores(q_NE, item_RE, target_N, column_GK, shift_GK, size, before)[:2]


def _scores(
    q_NE: Tensor, item_RE: Tensor, target_N: Tensor, column_GK: Tensor, shift_GK: Tensor | None, size: int, before: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The scores; and predictions in whole groups, [G, g, E], and whether a negative of theirs is the target, [G, g, K]."""
    num_groups, right_NE, item_GKE = len(column_GK), item_RE[: len(q_NE)], item_RE[len(q_NE) :]
    room = (before, num_groups * size - before - len(q_NE))
    q_GgE = F.pad(q_NE, (0, 0, *room)).unflatten(0, (num_groups, size))
    target_Gg = F.pad(target_N, room, value=-1).unflatten(0, (num_groups, size))
    is_target_GgK = target_Gg.unsqueeze(2) == column_GK.unsqueeze(1)
    score_GgK = q_GgE @ item_GKE.view(*column_GK.shape, -1).transpose(1, 2)
    if shift_GK is not None:
        score_GgK = score_GgK + shift_GK.unsqueeze(1)  # not in place: of 16 bits they would stay
    score_GgK.masked_fill_(is_target_GgK, -torch.inf)
    negative_NK = score_GgK.flatten(0, 1)[before : before + len(q_NE)]
    return (q_NE * right_NE).sum(1), negative_NK, q_GgE, is_target_GgK


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_NE: Tensor,
        item_RE: Tensor,
        target_N: Tensor,
        column_GK: Tensor,
        shift_GK: Tensor | None,
        size: int,
        before: int,
    ) -> tuple[Tensor, Tensor]:
        given = (q_NE, item_RE, target_N, column_GK, shift_GK, size, before)
        positive_N, negative_NK, q_GgE, is_target_GgK = _scores(*given)
        ctx.save_for_backward(q_GgE, item_RE, is_target_GgK)
        ctx.own = slice(before, before + len(q_NE))
        return positive_N, negative_NK

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_N: Tensor, grad_NK: Tensor) -> tuple[Tensor | None, ...]:
        q_GgE, item_RE, is_target_GgK = ctx.saved_tensors
        num, own = len(grad_N), ctx.own
        num_groups, size, count = is_target_GgK.shape
        grad_GgK = grad_NK.new_zeros(num_groups * size, count)
        grad_GgK[own] = grad_NK
        grad_GgK = grad_GgK.view_as(is_target_GgK).masked_fill_(is_target_GgK, 0)
        item_GKE = item_RE[num:].view(num_groups, count, -1)
        grad_q_NE = (grad_GgK @ item_GKE).flatten(0, 1)[own].addcmul_(item_RE[:num], grad_N.unsqueeze(1))
        grad_RE = torch.empty_like(item_RE)
        torch.mul(q_GgE.flatten(0, 1)[own], grad_N.unsqueeze(1), out=grad_RE[:num])
        torch.bmm(grad_GgK.transpose(1, 2), q_GgE, out=grad_RE[num:].view(item_GKE.shape))
        shifted = ctx.needs_input_grad[4]
        return grad_q_NE, grad_RE, None, None, grad_GgK.sum(1) if shifted else None, None, None
