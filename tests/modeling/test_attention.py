"""Attention keeps to sessions by a mask, on a flat row by blocks, and on a GPU by the bounds of sessions: all see the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling import attention
from modeling.attention import Direction, Layout, attend
from modeling.batches import Shape, lay_out
from tests.conftest import sessions_of
from tests.second_device import pretended_cuda

SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [3, 3, 3, 3, 3, 3, 3], [4, 5, 5, 6, 0, 0, 0]])
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 0, 0, 0]])
LENGTHS = [3, 70, 2, 7, 1, 60, 64, 2, 2, 0, 0]  # longer than a block's least size, and room for two more
both_ways = pytest.mark.parametrize("direction", ["causal", "both"])


def layout_of(direction: Direction) -> Layout:
    return Layout(SEGMENTS, POSITIONS, direction)


def flat_row(direction: Direction, room: int = 300, lengths: list[int] = LENGTHS) -> Layout:
    sessions = replace(sessions_of([[3] * length for length in lengths]), lengths=torch.tensor(lengths))
    return lay_out(sessions, packed=True, direction=direction, shape=Shape(room, max(lengths), flat=True))


def heads(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (3, 2, 7, 8), generator=torch.Generator().manual_seed(seed))


def one_by_one(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, _: Tensor, *widths: int, **options: object) -> Tensor:
    """What the kernel of GPUs computes, on a CPU: attention over each stretch between two bounds."""
    assert starts.dtype == torch.int32 and int(starts.diff().max()) <= widths[0] == widths[1]
    assert int(starts[0]) == 0 and int(starts[-1]) == len(q)
    causal = {(-1, 0): True, (-1, -1): False}[options["window_size"]]  # type: ignore[index]
    out = torch.empty_like(q)
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        parts = [x[first:last].transpose(0, 1) for x in (q, k, v)]
        found = F.scaled_dot_product_attention(*parts, is_causal=causal, scale=options["scale"])  # type: ignore[arg-type]
        out[first:last] = found.transpose(0, 1)
    return out


def test_bounds_lie_between_sessions_and_within_padding_and_have_one_size() -> None:
    bounds = [flat_row("causal", 20, lengths).bounds.tolist() for lengths in ([4, 2, 4], [1, 4, 0])]
    assert bounds[0] == [0, 4, 6, *range(10, 64, 4), *[64] * 3]
    assert bounds[1] == [0, 1, 5, *range(5, 64, 4), *[64] * 2]
    assert len(bounds[0]) == len(bounds[1])


@both_ways
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("room", [211, 1000])
def test_blocks_see_what_the_mask_shows_forwards_and_backwards(direction: Direction, rotary: bool, room: int) -> None:
    layout = flat_row(direction, room)
    size = layout.segments_BL.shape[1]
    assert layout.block == 80 and size % 80 == 0 and size >= room
    given = [heads(seed, 1, 2, size, 8).requires_grad_() for seed in range(3)]
    real = layout.inside_BL[:, None, :, None]
    found = []
    for one in (layout, replace(layout, block=None)):
        out = attend(*given, one, rotary=rotary, scale=0.4)
        (out * real * heads(4, 1, 2, size, 8)).sum().backward()
        found.append([out.detach() * real, *(x.grad for x in given)])
        for x in given:
            x.grad = None
    for blocks, mask in zip(*found, strict=True):
        torch.testing.assert_close(blocks, mask, atol=1e-5, rtol=1e-5)


def test_blocks_grow_with_the_row_and_not_with_its_square() -> None:
    sizes = [flat_row("both", room).seen_G1CW.numel() for room in (800, 8000)]
    assert sizes[1] == 10 * sizes[0]


@both_ways
@pytest.mark.parametrize("scale", [None, 0.3])
def test_by_bounds_and_by_mask_are_the_same(
    direction: Direction, scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "varlen_attn", one_by_one)
    layout = flat_row(direction)
    size = layout.segments_BL.shape[1]
    q, k, v = (heads(seed, 1, 2, size, 8) for seed in range(3))
    masked = attend(q, k, v, layout, scale=scale)
    bounded = attention._attend_by_session(q, k, v, layout, scale)
    real = layout.inside_BL[:, None, :, None].expand_as(masked)
    assert bounded.isfinite().all()
    torch.testing.assert_close(bounded[real], masked[real])


def test_rotation_tells_distances_and_nothing_else() -> None:
    """Turning all positions of a session by the same number changes nothing."""
    q, k, v = map(heads, range(3))
    here = attend(q, k, v, layout_of("causal"), rotary=True)
    later = attend(q, k, v, Layout(SEGMENTS, POSITIONS + 5), rotary=True)
    torch.testing.assert_close(here, later, atol=1e-5, rtol=0)
    assert not torch.allclose(here, attend(q, k, v, layout_of("causal")), atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@both_ways
def test_on_a_gpu_the_kernel_agrees_with_the_blocks(direction: Direction) -> None:
    layout = flat_row(direction)
    size = layout.segments_BL.shape[1]
    names = ("segments_BL", "positions_BL", "bounds")
    layout = replace(layout, **{name: getattr(layout, name).cuda() for name in names})
    q, k, v = (heads(seed, 1, 2, size, 8).cuda() for seed in range(3))
    exact = attend(q, k, v, layout)
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), layout).float()
    real = layout.inside_BL[:, None, :, None].expand_as(exact)
    torch.testing.assert_close(half[real], exact[real], atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU, asked above")
def test_half_precision_takes_the_bounds_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(
        attention, "varlen_attn", lambda *given, **options: calls.append(1) or one_by_one(*given, **options)
    )
    layout = flat_row("causal")
    size = layout.segments_BL.shape[1]
    q, k, v = (heads(seed, 1, 2, size, 8).bfloat16() for seed in range(3))
    expected = attend(q, k, v, layout, rotary=True)
    with pretended_cuda():
        names = ("segments_BL", "positions_BL", "bounds")
        there = replace(layout, **{name: getattr(layout, name).to("cuda") for name in names})
        q, k, v = (x.to("cuda") for x in (q, k, v))
        found = attend(q, k, v, there, rotary=True).cpu()
        assert calls
        attend(q, k, v, there, dropout=0.1), attend(q.float(), k.float(), v.float(), there)
        assert len(calls) == 1, "the kernel has no dropout and no single precision"
    real = layout.inside_BL[:, None, :, None].expand_as(found)
    torch.testing.assert_close(found[real], expected[real], atol=2e-2, rtol=2e-2)
