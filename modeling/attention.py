"""Where the events of sessions lie in a batch, who may look at whom, and attention that keeps to it: for our own bodies and
those of Hugging Face.

Rows of about 64 places are attended whole, under a mask. A flat row, which holds a whole batch, is cut into blocks of C places,
C no shorter than the longest session: the queries of a block look at its own keys and at those of its neighbours, so that the
cost grows with the row and not with its square.

B rows, H heads, L places, K head size, S sessions, T = B * L; G blocks of C queries and W keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

Value = TypeVar("Value")
Direction = Literal["causal", "both", "permuted"]
FLEX_BLOCK = 128  # places, the least that its kernels take; rows are of whole multiples
FLEX_ON, LEAST_FLEX_HEAD = ("cuda",), 16
HEAD_SIZES = 8  # whole multiples of which a GPU's kernels take


class once(Generic[Value]):  # noqa: N801 (read as a decorator)
    """A property that is computed when it is first asked for, and kept.

    `functools.cached_property` takes a lock in Python 3.11, at which compiled code falls to pieces.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self.make, self.name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, owner: Any, kind: type | None = None) -> Value:
        value = self.make(owner)
        object.__setattr__(owner, self.name, value)  # found before this from now on
        return value


@dataclass(frozen=True)
class Layout:
    """Where the events of S sessions lie in B rows of L places, and which places see which.

    `segments_BL` numbers the sessions from 1 (0: padding), `positions_BL` counts within each from 0. `seconds_BL`, where times
    are known, is the time since the session's first event; `asked_BL`, where it is read, that of what a place is asked about.
    In the direction `permuted`, `order_BL` is 0 at places that all see, and counts places in the order in which they are
    predicted: each sees those before it.

    A body needs no more. For those who make batches, `event_BL` is the event at a place (-1: none), `from_end_BL` counts places
    from the end of their session, and `end_S` is the last place of each session, counted row by row (all empty by default).

    The rest is what the host knows without asking the device, None where it would have to ask: `longest`, no session has more
    places; `most`, all sessions together have no more, and `most_asked`, no more can be asked about (None: all). A flat row has
    its `block` C too.
    """

    segments_BL: Tensor
    positions_BL: Tensor
    direction: Direction = "causal"
    seconds_BL: Tensor | None = None
    order_BL: Tensor | None = None
    asked_BL: Tensor | None = None
    event_BL: Tensor = field(default_factory=lambda: torch.empty(0))
    from_end_BL: Tensor = field(default_factory=lambda: torch.empty(0))
    end_S: Tensor = field(default_factory=lambda: torch.empty(0))
    longest: int | None = None
    most: int | None = None
    most_asked: int | None = None
    block: int | None = None

    @once
    def session_BL(self) -> Tensor:
        """The session's number from 0; padding counts as of session 0."""
        return (self.segments_BL - 1).clamp(min=0)

    @once
    def inside_BL(self) -> Tensor:
        """Whether a place belongs to a session."""
        return self.segments_BL > 0

    @once
    def is_end_BL(self) -> Tensor:
        """Whether a place is the last of its session."""
        return (self.from_end_BL == 0) & self.inside_BL

    @once
    def same_BLL(self) -> Tensor:
        """Whether two places belong to the same session; padding counts as one session."""
        return self.segments_BL[:, :, None] == self.segments_BL[:, None, :]

    @once
    def mask_B1LL(self) -> Tensor:
        """Whether place i may see place j. No row is empty: every place sees itself."""
        same_BLL = self.same_BLL
        return (same_BLL.tril() if self.direction == "causal" else same_BLL)[:, None]

    @once
    def seen_G1CW(self) -> Tensor:
        """Whether a query of a block may see a key of its window; of rows attended whole, `mask_B1LL`."""
        if self.block is None:
            return self.mask_B1LL
        segment_B1L1 = self.segments_BL[:, None, :, None]
        seen_GCW = (self.queries(segment_B1L1) == self.keys(segment_B1L1).transpose(2, 3)).squeeze(1)
        return (seen_GCW & (self.apart_CW >= 0) if self.direction == "causal" else seen_GCW)[:, None]

    @once
    def block_mask(self) -> BlockMask:
        """The same of a flat row for `flex_attention`, which leaves out what no query of a block sees."""
        width, device = self.segments_BL.shape[1], self.segments_BL.device
        size = max(self.block or 0, FLEX_BLOCK)
        before, after = self._reach
        causal, segment_T = self.direction == "causal", self.segments_BL[0].int()

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = segment_T[query] == segment_T[key]
            return same & (query >= key) if causal else same

        keys, queries = (_band(width // size, *reach, device) for reach in ((before, after), (after, before)))
        return BlockMask(
            seq_lengths=(width, width),
            kv_num_blocks=keys[0],
            kv_indices=keys[1],
            full_kv_num_blocks=None,
            full_kv_indices=None,
            q_num_blocks=queries[0],
            q_indices=queries[1],
            full_q_num_blocks=None,
            full_q_indices=None,
            BLOCK_SIZE=(size, size),
            mask_mod=sees,
        )

    @once
    def apart_CW(self) -> Tensor:
        """How many places a query of a block lies behind a key of its window."""
        length = self.block or self.segments_BL.shape[1]
        before, after = self._reach
        place_C = torch.arange(length, device=self.segments_BL.device)
        place_W = torch.arange(-before * length, (1 + after) * length, device=self.segments_BL.device)
        return place_C[:, None] - place_W

    def queries(self, x_BHLK: Tensor) -> Tensor:
        """What lies at places, [B, H, L, K], in blocks: [G, H, C, K]. Rows attended whole stay."""
        return x_BHLK if self.block is None else x_BHLK[0].unflatten(1, (-1, self.block)).transpose(0, 1)

    def keys(self, x_BHLK: Tensor) -> Tensor:
        """What lies at places, [B, H, L, K], in the window of each block: [G, H, W, K], 0 outside the row."""
        if self.block is None:
            return x_BHLK
        before, after = self._reach
        x_GHCK = self.queries(x_BHLK)
        padded = F.pad(x_GHCK, (0, 0) * 3 + (before, after))
        num_blocks = len(x_GHCK)
        return torch.cat([padded[first : first + num_blocks] for first in range(1 + before + after)], 2)

    def rows(self, x_GHCK: Tensor) -> Tensor:
        """Blocks of places back in their row, [B, H, L, K]."""
        return x_GHCK if self.block is None else x_GHCK.transpose(0, 1).flatten(1, 2)[None]

    @property
    def _reach(self) -> tuple[int, int]:
        """How many blocks a window holds before and after that of its queries."""
        return (0, 0) if self.block is None else (1, 0) if self.direction == "causal" else (1, 1)

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

    Compiled code (`torch.compile`) that drops nothing makes a kernel of its own for a flat row, which is several times faster
    than that under a mask. Kernels under a mask want head sizes of whole multiples: narrower heads are filled up with zeros.
    """
    if rotary:
        cos, sin = layout.rotation(q_BHLK.shape[-1])
        q_BHLK, k_BHLK = _rotate(q_BHLK, cos, sin), _rotate(k_BHLK, cos, sin)
    scale = q_BHLK.shape[-1] ** -0.5 if scale is None else scale
    size = v_BHLK.shape[-1]  # some types have values of another size than keys
    if q_BHLK.is_cuda:
        q_BHLK, k_BHLK, v_BHLK = _filled_up(q_BHLK), _filled_up(k_BHLK), _filled_up(v_BHLK)
    if _takes_flex(q_BHLK, layout) and not dropout:
        # Of one head these are views of the product that made them, in a layout that the kernel's compiler may not choose.
        q_BHLK, k_BHLK = q_BHLK.to(v_BHLK.dtype).contiguous(), k_BHLK.to(v_BHLK.dtype).contiguous()
        v_BHLK = v_BHLK.contiguous()
        out_BHLK = flex_attention(q_BHLK, k_BHLK, v_BHLK, block_mask=layout.block_mask, scale=scale)
        assert isinstance(out_BHLK, Tensor)  # more comes only when it is asked for
        return out_BHLK[..., :size]
    out_GHCK = F.scaled_dot_product_attention(
        layout.queries(q_BHLK),
        layout.keys(k_BHLK),
        layout.keys(v_BHLK),
        attn_mask=layout.seen_G1CW,
        dropout_p=dropout,
        scale=scale,
    )
    return layout.rows(out_GHCK)[..., :size]


def _takes_flex(q_BHLK: Tensor, layout: Layout) -> bool:
    """Whether a kernel is made for this: it is compiled, on a GPU, and heads are no narrower than such kernels take."""
    if not torch.compiler.is_compiling() or q_BHLK.device.type not in FLEX_ON:
        return False
    return layout.block is not None and layout.direction != "permuted" and q_BHLK.shape[-1] >= LEAST_FLEX_HEAD


def _band(count: int, before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each of `count` blocks, how many lie from `before` blocks before it to `after` behind it, and which: int32,
    [1, 1, count] and [1, 1, count, count], of which the first columns count.
    """
    block = torch.arange(count, device=device, dtype=torch.int32)
    first, last = (block - before).clamp(min=0), (block + after).clamp(max=count - 1)
    which = (first[:, None] + block).clamp(max=count - 1)
    return (last - first + 1)[None, None], which[None, None]


def _filled_up(x_BHLK: Tensor) -> Tensor:
    """With zeros to the next head size that kernels take."""
    short = -x_BHLK.shape[-1] % HEAD_SIZES
    return F.pad(x_BHLK, (0, short)) if short else x_BHLK


def _rotate(x_BHLK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_BHLK.chunk(2, -1)
    return (x_BHLK * cos + torch.cat([-second, first], -1) * sin).to(x_BHLK.dtype)
