"""What every body obeys in each of its directions: no look into the future, no neighbours, no padding.

B rows, L places, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flows.laws import Law, require
from modeling import parts
from modeling.attention import Direction, Layout
from modeling.batches import Shape, lay_out
from modeling.bodies import Body
from modeling.config import BodyConfig
from modeling.sessions import Sessions
from schemas.errors import InputError

DIM = 16
LENGTHS = [5, 1, 7, 3, 12, 2, 9]


@dataclass(frozen=True)
class Trial:
    """A body by name, in a direction, with rotary positions or without; `options` are those of its settings.

    Two states are the same within `tolerance`: weights are large here, and so is what rounding does to some bodies.
    """

    name: str
    direction: Direction
    rotary: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5

    @cached_property
    def shared(self) -> Body:
        """One body for all laws that only read its states: to build it costs more than they do."""
        return self.body()

    def body(self, **options: Any) -> Body:
        """The body with weights large enough for every part to have a say, the same every time."""
        torch.manual_seed(3)
        given = {"name": self.name, "dim": DIM, "num_heads": 2, "num_layers": 2} | self.options | options
        config = BodyConfig.model_validate(given)
        body: Body = parts.build("body", config, config, self.rotary)
        with torch.no_grad():
            for parameter in body.parameters():
                if parameter.requires_grad and parameter.dim() > 1:
                    parameter.normal_(std=0.3)
        return body.eval()

    def states(self, body: Body, sessions: list[Tensor]) -> list[Tensor]:
        """The states of each session, all in one row, or one a row where the body takes no several."""
        lengths = [len(one) for one in sessions]
        layout = layout_of([lengths] if body.packed else [[length] for length in lengths], self.direction)
        x_BLD = torch.zeros(*layout.segments_BL.shape, DIM)
        x_BLD[layout.segments_BL > 0] = torch.cat(sessions)
        with torch.no_grad():
            h_BLD = body(x_BLD, layout)
        require(
            h_BLD.shape == x_BLD.shape and h_BLD.dtype == x_BLD.dtype,
            f"Its states are {list(h_BLD.shape)} of {h_BLD.dtype} for inputs {list(x_BLD.shape)} of {x_BLD.dtype}.",
        )
        return list(h_BLD[layout.segments_BL > 0].split(lengths))


def trials_of(name: str, **options: Any) -> Iterator[Trial]:
    """A trial for each direction of a body, and for rotary positions where it has them."""
    kind = parts.body_class(name)
    for direction in sorted(kind.directions):
        for rotary in (False, True) if kind.rotary else (False,):
            yield Trial(name, direction, rotary, options)


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
    return Layout(segments, positions, direction, seconds_of(positions), order)


def seconds_of(positions_BL: Tensor) -> Tensor:
    """Times of events, farther and farther apart."""
    return positions_BL.double() ** 2 * 40


def session(length: int, seed: int = 0) -> Tensor:
    """The vectors of a session's events."""
    return torch.randn(length, DIM, generator=torch.Generator().manual_seed(100 * length + seed))


def the_future_changes_nothing_when_causal_and_something_else(trial: Trial) -> None:
    """Looking back only (causal), later events change no state; looking both ways, they do."""
    body, long, other = trial.shared, session(8), session(8, seed=1)
    changed = torch.cat([long[:5], other[5:]])
    before, after = trial.states(body, [long])[0], trial.states(body, [changed])[0]
    require(not _near(before[5:], after[5:], 1e-3), "An event does not change its own state.")
    if trial.direction == "causal":
        require(_near(before[:5], after[:5], trial.tolerance), "Earlier states change with later events.")
    elif trial.direction == "both":
        require(not _near(before[:5], after[:5], 1e-4), "Earlier states do not change with later events.")


def the_past_is_seen(trial: Trial) -> None:
    """Earlier events change the states of later ones."""
    body, long, other = trial.shared, session(8), session(8, seed=1)
    changed = torch.cat([other[:1], long[1:]])
    before, after = trial.states(body, [long])[0], trial.states(body, [changed])[0]
    require(not _near(before[3], after[3], 1e-4), "The first event changes no state of the fourth.")


def neighbours_and_padding_change_nothing(trial: Trial) -> None:
    """Other sessions in a row and padding change nothing."""
    body = trial.shared
    sessions = [session(length) for length in LENGTHS]
    together = trial.states(body, sessions)
    for index, one in enumerate(sessions):
        alone = trial.states(body, [one])[0]
        require(
            _near(alone, together[index], trial.tolerance), f"A session of {len(one)} events has other states alone."
        )


def a_flat_row_changes_nothing(trial: Trial) -> None:
    """A body that says it takes a flat row (`flat`) has the same states in one, and makes no mask of all pairs of places."""
    body = trial.shared
    if not (body.flat and body.packed):
        return
    sessions = [session(length, seed) for seed in range(5) for length in LENGTHS]
    lengths = torch.tensor([len(one) for one in sessions])
    events = Sessions({}, lengths.cumsum(0) - lengths, lengths, end=lengths)
    shape = Shape(int(lengths.sum()) + 20, int(lengths.max()), flat=True)
    layout = lay_out(events, packed=True, direction=trial.direction, shape=shape)
    layout = replace(layout, seconds_BL=seconds_of(layout.positions_BL))
    x_BLD = torch.zeros(*layout.segments_BL.shape, DIM)
    x_BLD[layout.inside_BL] = torch.cat(sessions)
    with torch.no_grad():
        flat = body(x_BLD, layout)[layout.inside_BL]
    require(_near(flat, torch.cat(trial.states(body, sessions)), 1e-5), "They differ.")
    whole = {"same_BLL", "mask_B1LL"} & vars(layout).keys()
    require(
        not whole,
        f"It asked the layout for {', '.join(sorted(whole))}: use attend, or the layout's blocks (`seen_G1CW`).",
    )


def every_weight_gets_a_finite_gradient(trial: Trial) -> None:
    """Every weight that is trained gets a gradient, and all are finite."""
    body = trial.body(dropout=0.0).train()
    body.keep_to(trial.direction)
    layout = layout_of([LENGTHS] if body.packed else [[length] for length in LENGTHS], trial.direction)
    x_BLD = torch.randn(*layout.segments_BL.shape, DIM, requires_grad=True)
    h_BLD = body(x_BLD.clone(), layout)  # not the leaf itself: a body may add to its input in place
    (h_BLD[layout.segments_BL > 0] * torch.randn(DIM)).sum().backward()
    require(x_BLD.grad is not None and bool(x_BLD.grad.isfinite().all()), "That of the inputs is not.")
    for weight, parameter in body.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            require(gradient is not None, f"{weight} gets none.")
            require(gradient is not None and bool(gradient.isfinite().all()), f"That of {weight} is not.")
            require(gradient is not None and bool(gradient.abs().sum() > 0), f"That of {weight} is 0.")


def order_is_seen_only_where_asked(trial: Trial) -> None:
    """Without positions of ours, only a body that says so (`ordered`) sees in which order the past came."""
    if trial.direction == "permuted":  # the order of prediction sets places apart
        return
    long = session(3)
    try:
        body = trial.body(num_layers=1)  # looking back only, two layers see it in any case
    except InputError:  # a type that cannot have one
        return
    before, after = trial.states(body, [long])[0][-1], trial.states(body, [long[[1, 0, 2]]])[0][-1]
    if trial.rotary or body.ordered:
        require(not _near(before, after, 1e-5), "It does not.")
    else:
        require(_near(before, after, trial.tolerance), "It does.")


def the_same_weights_give_the_same_states(trial: Trial) -> None:
    """The same weights and inputs give the same states, also after they were saved and loaded."""
    body, sessions = trial.shared, [session(length) for length in LENGTHS]
    torch.manual_seed(11)
    again = trial.body()
    again.load_state_dict(body.state_dict())
    torch.manual_seed(12)
    first = trial.states(body, sessions)
    torch.manual_seed(13)
    second = trial.states(again, sessions)
    require(all(torch.equal(one, two) for one, two in zip(first, second, strict=True)), "They differ.")


LAWS: tuple[Law, ...] = (
    the_same_weights_give_the_same_states,
    the_future_changes_nothing_when_causal_and_something_else,
    the_past_is_seen,
    neighbours_and_padding_change_nothing,
    a_flat_row_changes_nothing,
    every_weight_gets_a_finite_gradient,
    order_is_seen_only_where_asked,
)


def _near(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return torch.allclose(one, other, atol=tolerance, rtol=0)
