"""What every body must obey in every direction it offers: no look into the future, no neighbours, no padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modeling import bodies, offers
from modeling.attention import Direction, Layout
from modeling.bodies import Body
from modeling.config import BodyConfig
from schemas import plugins

DIM = 16
LENGTHS = [5, 1, 7, 3, 12, 2, 9]
EVERY = [
    (name, direction, rotary)
    for name in plugins.names(bodies)
    for direction in sorted(offers.body_class(name).directions)
    for rotary in ((False, True) if offers.body_class(name).rotary else (False,))
]
every_body = pytest.mark.parametrize(("name", "direction", "rotary"), EVERY)


def body_of(name: str, rotary: bool = False, **options: object) -> Body:
    torch.manual_seed(3)
    config = BodyConfig.model_validate({"name": name, "dim": DIM, "num_heads": 2, "num_layers": 2} | options)
    body: Body = offers.build("body", config, config, rotary)
    with torch.no_grad():  # weights large enough for every part to have a say
        for parameter in body.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return body.eval()


def layout_of(rows: list[list[int]], direction: Direction) -> Layout:
    """Rows of sessions of the given lengths, padded to the longest row."""
    width = max(sum(row) for row in rows)
    segments, positions = (
        torch.zeros(len(rows), width, dtype=torch.long),
        torch.zeros(len(rows), width, dtype=torch.long),
    )
    number = 0
    for index, row in enumerate(rows):
        place = 0
        for length in row:
            number += 1
            segments[index, place : place + length] = number
            positions[index, place : place + length] = torch.arange(length)
            place += length
    order = torch.where(positions >= 2, positions - 1, 0) if direction == "permuted" else None
    return Layout(segments, positions, direction, positions.double() ** 2 * 40, order)


def session(length: int, seed: int = 0) -> Tensor:
    return torch.randn(length, DIM, generator=torch.Generator().manual_seed(100 * length + seed))


def states(
    body: Body, sessions: list[Tensor], direction: Direction, rows: list[list[int]] | None = None
) -> list[Tensor]:
    """The states of each session, laid out in rows of the given numbers of events; else all in one row, or one a row."""
    lengths = [len(one) for one in sessions]
    rows = rows or ([lengths] if body.packed else [[length] for length in lengths])
    layout = layout_of(rows, direction)
    x_BLD = torch.zeros(*layout.segments_BL.shape, DIM)
    x_BLD[layout.segments_BL > 0] = torch.cat(sessions)
    with torch.no_grad():
        h_BLD = body(x_BLD, layout)
    assert h_BLD.shape == x_BLD.shape and h_BLD.dtype == x_BLD.dtype
    return list(h_BLD[layout.segments_BL > 0].split(lengths))


@every_body
def test_the_future_changes_nothing_when_causal_and_something_else(
    name: str, direction: Direction, rotary: bool
) -> None:
    body, long, other = body_of(name, rotary), session(8), session(8, seed=1)
    changed = torch.cat([long[:5], other[5:]])
    before, after = states(body, [long], direction)[0], states(body, [changed], direction)[0]
    assert not torch.allclose(before[5:], after[5:], atol=1e-3)
    if direction == "causal":
        torch.testing.assert_close(before[:5], after[:5], atol=1e-5, rtol=0)
    elif direction == "both":
        assert not torch.allclose(before[:5], after[:5], atol=1e-4)


@every_body
def test_the_past_is_seen(name: str, direction: Direction, rotary: bool) -> None:
    body, long, other = body_of(name, rotary), session(8), session(8, seed=1)
    changed = torch.cat([other[:1], long[1:]])
    before, after = states(body, [long], direction)[0], states(body, [changed], direction)[0]
    assert not torch.allclose(before[3], after[3], atol=1e-4)


@every_body
def test_neighbours_and_padding_change_nothing(name: str, direction: Direction, rotary: bool) -> None:
    body = body_of(name, rotary)
    sessions = [session(length) for length in LENGTHS]
    together = states(body, sessions, direction)
    for index, one in enumerate(sessions):
        torch.testing.assert_close(states(body, [one], direction)[0], together[index], atol=1e-5, rtol=0)


@every_body
def test_every_weight_gets_a_finite_gradient(name: str, direction: Direction, rotary: bool) -> None:
    body = body_of(name, rotary, dropout=0.0).train()
    body.keep_to(direction)
    layout = layout_of([LENGTHS] if body.packed else [[length] for length in LENGTHS], direction)
    x_BLD = torch.randn(*layout.segments_BL.shape, DIM, requires_grad=True)
    h_BLD = body(x_BLD, layout)
    (h_BLD[layout.segments_BL > 0] * torch.randn(DIM)).sum().backward()
    assert x_BLD.grad is not None and x_BLD.grad.isfinite().all()
    for weight, parameter in body.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), weight
            assert parameter.grad.abs().sum() > 0, weight


@every_body
def test_positions_tell_order_apart_only_where_asked(name: str, direction: Direction, rotary: bool) -> None:
    """Without positions of ours, only a body that says so tells in which order the past came."""
    if direction == "permuted":
        pytest.skip("the order of prediction tells places apart")
    body, long = body_of(name, rotary, num_layers=1), session(3)
    swapped = long[[1, 0, 2]]
    before, after = states(body, [long], direction)[0][-1], states(body, [swapped], direction)[0][-1]
    assert torch.allclose(before, after, atol=1e-5) is not (rotary or body.ordered)


@every_body
def test_the_same_weights_give_the_same_states(name: str, direction: Direction, rotary: bool) -> None:
    body, sessions = body_of(name, rotary), [session(length) for length in LENGTHS]
    torch.manual_seed(11)
    again = body_of(name, rotary)
    again.load_state_dict(body.state_dict())
    torch.manual_seed(12)
    first = states(body, sessions, direction)
    torch.manual_seed(13)
    second = states(again, sessions, direction)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
