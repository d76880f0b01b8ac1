"""Who may look at whom in a batch, and attention that keeps to it, for our own bodies and those of Hugging Face.

B rows, H heads, L places, K head size, T = B * L.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

Direction = Literal["causal", "both", "permuted"]


@dataclass(frozen=True)
class Layout:
    """The places of a batch as a body sees them.

    `segments_BL` numbers the sessions from 1 (0: padding), `positions_BL` counts within each from 0. `seconds_BL`, where
    times are known, is the time since the session's first event. In the direction `permuted`, `order_BL` is 0 at places all
    others may see, and counts places in the order in which they are predicted: each sees those before it.
    """

    segments_BL: Tensor
    positions_BL: Tensor
    direction: Direction = "causal"
    seconds_BL: Tensor | None = None
    order_BL: Tensor | None = None

    @cached_property
    def same_BLL(self) -> Tensor:
        """Whether two places belong to the same session; padding counts as one session."""
        return self.segments_BL[:, :, None] == self.segments_BL[:, None, :]

    @cached_property
    def mask_B1LL(self) -> Tensor:
        """Whether place i may see place j. No row is empty: every place sees itself."""
        same_BLL = self.same_BLL
        return (same_BLL.tril() if self.direction == "causal" else same_BLL)[:, None]

    @cached_property
    def bounds(self) -> Tensor:
        """Where sessions and stretches of padding begin among all T places row by row, and T at last; int32."""
        segments_BL = self.segments_BL
        begins_BL = F.pad(segments_BL[:, 1:] != segments_BL[:, :-1], (1, 0), value=True)
        return F.pad(begins_BL.flatten().nonzero().squeeze(1), (0, 1), value=segments_BL.numel()).int()

    def rotation(self, head_size: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of rotary positions (RoFormer, arXiv:2104.09864), each [B, 1, L, K]."""
        steps = torch.arange(0, head_size, 2, device=self.positions_BL.device, dtype=torch.float32)
        angle_BLK = self.positions_BL[:, :, None] * 10_000 ** (-steps / head_size)
        angle_B1LK = torch.cat([angle_BLK, angle_BLK], -1)[:, None]
        return angle_B1LK.cos(), angle_B1LK.sin()


def attend(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    layout: Layout,
    *,
    rotary: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention within sessions, in the layout's direction; [B, H, L, K].

    On a GPU in half precision, without dropout, sessions go to a kernel that skips what the mask would hide.
    """
    if rotary:
        cos, sin = layout.rotation(q_BHLK.shape[-1])
        q_BHLK, k_BHLK = _rotate(q_BHLK, cos, sin), _rotate(k_BHLK, cos, sin)
    if q_BHLK.is_cuda and q_BHLK.dtype in (torch.bfloat16, torch.float16) and not dropout:
        return _attend_by_session(q_BHLK, k_BHLK, v_BHLK, layout, scale)
    return F.scaled_dot_product_attention(
        q_BHLK, k_BHLK, v_BHLK, attn_mask=layout.mask_B1LL, dropout_p=dropout, scale=scale
    )


def _attend_by_session(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, layout: Layout, scale: float | None) -> Tensor:
    """The same through FlashAttention's kernel for sequences of different lengths."""
    batch, _, width, _ = q_BHLK.shape
    q_THK, k_THK, v_THK = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHLK, k_BHLK, v_BHLK))
    window = (-1, 0) if layout.direction == "causal" else (-1, -1)
    bounds = layout.bounds
    out_THK = varlen_attn(q_THK, k_THK, v_THK, bounds, bounds, width, width, scale=scale, window_size=window)
    assert isinstance(out_THK, Tensor)  # a second result comes only when it is asked for
    return out_THK.unflatten(0, (batch, width)).transpose(1, 2)


def _rotate(x_BHLK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_BHLK.chunk(2, -1)
    return (x_BHLK * cos + torch.cat([-second, first], -1) * sin).to(x_BHLK.dtype)
