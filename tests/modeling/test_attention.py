"""Attention keeps to sessions by a mask and, on a GPU, by the bounds of sessions: both see the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling import attention
from modeling.attention import Direction, Layout, attend
from tests.second_device import pretended_cuda

SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [3, 3, 3, 3, 3, 3, 3], [4, 5, 5, 6, 0, 0, 0]])
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 0, 0, 0]])


def layout_of(direction: Direction) -> Layout:
    return Layout(SEGMENTS, POSITIONS, direction)


def heads(seed: int) -> Tensor:
    return torch.randn(3, 2, 7, 8, generator=torch.Generator().manual_seed(seed))


def one_by_one(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, _: Tensor, *widths: int, **options: object) -> Tensor:
    """What the kernel of GPUs computes, on a CPU: attention over each stretch between two bounds."""
    assert starts.dtype == torch.int32 and widths == (7, 7)
    causal = {(-1, 0): True, (-1, -1): False}[options["window_size"]]  # type: ignore[index]
    out = torch.empty_like(q)
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        parts = [x[first:last].transpose(0, 1) for x in (q, k, v)]
        found = F.scaled_dot_product_attention(*parts, is_causal=causal, scale=options["scale"])  # type: ignore[arg-type]
        out[first:last] = found.transpose(0, 1)
    return out


def test_bounds_lie_between_sessions_and_before_padding() -> None:
    assert layout_of("causal").bounds.tolist() == [0, 3, 5, 7, 14, 15, 17, 18, 21]


@pytest.mark.parametrize("direction", ["causal", "both"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_by_bounds_and_by_mask_are_the_same(
    direction: Direction, scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "varlen_attn", one_by_one)
    layout, (q, k, v) = layout_of(direction), map(heads, range(3))
    masked = attend(q, k, v, layout, scale=scale)
    bounded = attention._attend_by_session(q, k, v, layout, scale)
    real = (SEGMENTS > 0)[:, None, :, None].expand_as(masked)
    torch.testing.assert_close(bounded[real], masked[real])


def test_rotation_tells_distances_and_nothing_else() -> None:
    """Turning all positions of a session by the same number changes nothing."""
    q, k, v = map(heads, range(3))
    here = attend(q, k, v, layout_of("causal"), rotary=True)
    later = attend(q, k, v, Layout(SEGMENTS, POSITIONS + 5), rotary=True)
    torch.testing.assert_close(here, later, atol=1e-5, rtol=0)
    assert not torch.allclose(here, attend(q, k, v, layout_of("causal")), atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("direction", ["causal", "both"])
def test_on_a_gpu_the_kernel_agrees_with_the_mask(direction: Direction) -> None:
    q, k, v = (heads(seed).cuda() for seed in range(3))
    layout = Layout(SEGMENTS.cuda(), POSITIONS.cuda(), direction)
    exact = attend(q, k, v, layout)
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), layout).float()
    real = (layout.segments_BL > 0)[:, None, :, None].expand_as(exact)
    torch.testing.assert_close(half[real], exact[real], atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU, asked above")
def test_half_precision_takes_the_bounds_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", one_by_one)
    q, k, v = (heads(seed).bfloat16() for seed in range(3))
    expected = attend(q, k, v, layout_of("causal"), rotary=True)
    with pretended_cuda():
        layout = Layout(SEGMENTS.to("cuda"), POSITIONS.to("cuda"))
        found = attend(q.to("cuda"), k.to("cuda"), v.to("cuda"), layout, rotary=True).cpu()
    real = (SEGMENTS > 0)[:, None, :, None].expand_as(q)
    torch.testing.assert_close(found[real], expected[real], atol=2e-2, rtol=2e-2)
