"""Attention keeps to sessions by a mask, on a flat row by blocks, in compiled code by a kernel of its own: all see the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
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


@both_ways
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("room", [211, 1000])
def test_blocks_see_what_the_mask_shows_forwards_and_backwards(direction: Direction, rotary: bool, room: int) -> None:
    layout = flat_row(direction, room)
    size = layout.segments_BL.shape[1]
    assert layout.block == 128 and size % 128 == 0 and size >= room
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
    sizes = [flat_row("both", room).seen_G1CW.numel() for room in (896, 8960)]
    assert sizes[1] == 10 * sizes[0]


@pytest.fixture
def flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code takes flex_attention on a CPU, too, also where gradients are asked for."""
    monkeypatch.setattr(attention, "FLEX_ON", ("cpu", "cuda"))
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *given: None)
    torch.compiler.reset()


def gradients_of(attend: Callable[..., Tensor], layout: Layout, **options: Any) -> list[Tensor]:
    """What is attended, and the gradients of queries, keys and values; 0 in padding."""
    device, width = layout.segments_BL.device, layout.segments_BL.shape[1]
    given = [heads(seed, 1, 2, width, 16).to(device).requires_grad_() for seed in range(3)]
    real = layout.inside_BL[:, None, :, None]
    out = attend(*given, layout, **options)
    (out * real * heads(4, 1, 2, width, 16).to(device)).sum().backward()
    return [out.detach() * real, *(x.grad for x in given if x.grad is not None)]


@both_ways
@pytest.mark.parametrize("lengths", [LENGTHS, [3, 5, 2, 0], [200, 60, 130]])
def test_compiled_attention_sees_the_same(direction: Direction, lengths: list[int], flex: None) -> None:
    """With sessions of one block, and of several."""
    layout = flat_row(direction, 500, lengths)
    compiled = torch.compile(attend, backend="eager", dynamic=False)
    for one, two in zip(gradients_of(attend, layout), gradients_of(compiled, layout), strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)
    taken = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    gradients_of(compiled, flat_row(direction, 500, lengths[::-1]))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == taken, "compiled once for all batches"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@both_ways
def test_compiled_on_a_gpu(direction: Direction) -> None:
    layout = flat_row(direction)
    layout = replace(layout, segments_BL=layout.segments_BL.cuda(), positions_BL=layout.positions_BL.cuda())
    found = gradients_of(torch.compile(attend, dynamic=False), layout)
    for one, two in zip(gradients_of(attend, layout), found, strict=True):
        torch.testing.assert_close(two, one, atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")
@pytest.mark.parametrize("size", [5, 8, 12])
def test_heads_of_odd_sizes_are_filled_up_for_kernels_of_gpus(size: int) -> None:
    layout = flat_row("causal")
    given = [heads(seed, 1, 2, layout.segments_BL.shape[1], size) for seed in range(3)]
    expected = attend(*given, layout, rotary=size != 5)
    with pretended_cuda():
        there = replace(layout, segments_BL=layout.segments_BL.to("cuda"), positions_BL=layout.positions_BL.to("cuda"))
        found = attend(*(x.to("cuda") for x in given), there, rotary=size != 5).cpu()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_rotation_tells_distances_and_nothing_else() -> None:
    """Turning all positions of a session by the same number changes nothing."""
    q, k, v = map(heads, range(3))
    here = attend(q, k, v, layout_of("causal"), rotary=True)
    later = attend(q, k, v, Layout(SEGMENTS, POSITIONS + 5), rotary=True)
    torch.testing.assert_close(here, later, atol=1e-5, rtol=0)
    assert not torch.allclose(here, attend(q, k, v, layout_of("causal")), atol=1e-3)
