"""HSTU: hierarchical sequential transduction units (Zhai et al., arXiv:2402.17152).

Attention without softmax: what a place sees is weighed by SiLU of the scores, so that how much there is of something counts,
and another part of the input gates the sum.

    U, V, Q, K = SiLU(LN(x) W)
    h = x + drop(U * norm(SiLU(Q K' + position bias + time bias) / n V)) Wo + bo

The paper divides by the length that all sequences are padded to. Here n is the number of places that a place sees, which
neither padding nor neighbours change; the norm takes any factor per place away again.

Biases are learned per distance in places, up to DISTANCES either way, and per power of two of the seconds between two
events: bucket 0 is under a second, bucket b from 2^(b-1) to 2^b, the last has no end. They come from the feature of time
(`inputs.time`); without one, all events count as simultaneous. The paper measures from the time of the event to be
*predicted*: so it is with `inputs.query_time`, where a service says when it asks; else from that of the place that predicts.

B rows, H heads, L places, K head size, D width; G blocks of C queries and W keys, or rows of places.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modeling.attention import Direction, Layout
from modeling.bodies import Body
from modeling.config import BodyConfig

DISTANCES = 128
EPS = 1e-6


class HSTU(Body):
    """Gated attention by SiLU, with biases for places and times apart (arXiv:2402.17152)."""

    directions: ClassVar[frozenset[Direction]] = frozenset({"causal", "both"})
    flat: ClassVar[bool] = True
    ordered: ClassVar[bool] = True

    def __init__(
        self,
        config: BodyConfig,
        rotary: bool,
        *,
        time_buckets: Annotated[
            int, Field(ge=1, le=64, description="Powers of two of seconds between events that are kept apart. 1: none.")
        ] = 32,
    ) -> None:
        super().__init__(config, rotary)
        self.time_buckets = time_buckets
        self.blocks = nn.ModuleList(Block(config, time_buckets) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim, eps=EPS)

    def forward(self, x_BLD: Tensor, layout: Layout) -> Tensor:
        seen_G1CW = layout.seen_G1CW
        share_G1CW = seen_G1CW / seen_G1CW.sum(-1, keepdim=True)
        distance_CW = layout.apart_CW.clamp(-DISTANCES, DISTANCES) + DISTANCES
        buckets = self._buckets(layout)
        for block in self.blocks:
            x_BLD = block(x_BLD, layout, share_G1CW, distance_CW, buckets)
        h_BLD: Tensor = self.norm(x_BLD)
        return h_BLD

    def _buckets(self, layout: Layout) -> Tensor:
        """The bucket of the time between a query and a key, [G, C, W]; [1, 1, 1] without times."""
        if layout.seconds_BL is None:
            return torch.zeros(1, 1, 1, dtype=torch.long, device=layout.positions_BL.device)
        second_B1L1 = layout.seconds_BL[:, None, :, None]
        asked_B1L1 = second_B1L1 if layout.asked_BL is None else layout.asked_BL[:, None, :, None]
        apart_GCW = (layout.queries(asked_B1L1) - layout.keys(second_B1L1).transpose(2, 3)).squeeze(1).abs()
        return apart_GCW.frexp().exponent.clamp(0, self.time_buckets - 1).long()


class Block(nn.Module):
    """One unit: attention and the gate that takes the place of a feed-forward."""

    def __init__(self, config: BodyConfig, time_buckets: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm = nn.LayerNorm(config.dim, eps=EPS)
        self.mix = nn.Linear(config.dim, 4 * config.dim, bias=False)
        self.position_bias = nn.Parameter(torch.empty(2 * DISTANCES + 1).normal_(std=0.02))
        self.time_bias = nn.Parameter(torch.empty(time_buckets).normal_(std=0.02))
        self.out = nn.Linear(config.dim, config.dim)
        self.drop = nn.Dropout(config.dropout)
        nn.init.xavier_normal_(self.mix.weight)
        nn.init.xavier_normal_(self.out.weight)

    def forward(
        self, x_BLD: Tensor, layout: Layout, share_G1CW: Tensor, distance_CW: Tensor, buckets: Tensor
    ) -> Tensor:
        """One unit; shapes stay. `share_G1CW` is one part of what a query sees, 0 where it sees nothing."""
        gate_BLD, *qkv = F.silu(self.mix(self.norm(x_BLD))).chunk(4, -1)
        v_BHLK, q_BHLK, k_BHLK = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in qkv)
        q_GHCK, k_GHWK, v_GHWK = layout.queries(q_BHLK), layout.keys(k_BHLK), layout.keys(v_BHLK)
        bias = (self.position_bias[distance_CW] + self.time_bias[buckets]).unsqueeze(1)
        weights_GHCW = F.silu(q_GHCK @ k_GHWK.transpose(-1, -2) + bias) * share_G1CW
        sum_BLD = layout.rows(weights_GHCW @ v_GHWK).transpose(1, 2).flatten(2)
        found_BLD = F.layer_norm(sum_BLD, sum_BLD.shape[-1:], eps=EPS)
        return x_BLD + self.out(self.drop(gate_BLD * found_BLD))
