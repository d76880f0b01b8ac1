"""Attention inside each session of a packed row, for our own bodies and, through one registered function, Hugging Face's.

B rows, H heads, L places, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "overnight"


@dataclass(frozen=True)
class Packing:
    """Who may look at whom: `mask_B1LL` (True: may), and rotations by position when they are wanted."""

    mask_B1LL: Tensor
    rotation: tuple[Tensor, Tensor] | None = None

    @classmethod
    def causal(cls, segments_BL: Tensor) -> Packing:
        """Each event sees its own session up to itself; padding sees padding, so that no row of the mask is empty."""
        same_BLL = segments_BL[:, :, None] == segments_BL[:, None, :]
        return cls(same_BLL.tril()[:, None])

    def rotated(self, positions_BL: Tensor, head_size: int) -> Packing:
        """The same with rotary positions (RoFormer, arXiv:2104.09864)."""
        steps = torch.arange(0, head_size, 2, device=positions_BL.device, dtype=torch.float32)
        angle_BLK = positions_BL[:, :, None] * 10_000 ** (-steps / head_size)
        angle_B1LK = torch.cat([angle_BLK, angle_BLK], -1)[:, None]
        return Packing(self.mask_B1LL, (angle_B1LK.cos(), angle_B1LK.sin()))


def attend(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, packing: Packing, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention within sessions; [B, H, L, K]."""
    if packing.rotation:
        q_BHLK, k_BHLK = (_rotate(x, *packing.rotation) for x in (q_BHLK, k_BHLK))
    return F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=packing.mask_B1LL, dropout_p=dropout)


def _rotate(x_BHLK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_BHLK.chunk(2, -1)
    return (x_BHLK * cos + torch.cat([-second, first], -1) * sin).to(x_BHLK.dtype)


def _hugging_face(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`attend` in the form that transformers calls; the body passes `packing` along as a keyword."""
    out_BHLK = attend(query, key, value, options["packing"], options.get("dropout", 0.0))
    return out_BHLK.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _hugging_face)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
