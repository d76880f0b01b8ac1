"""What every objective obeys, in a tiny model: it asks each session about its own events, and shows no answer.

N predictions, S sessions.
"""

from __future__ import annotations

import torch

from flows.laws import Law, models, require
from flows.laws.models import NUM_ITEMS, Trial, chains
from modeling.batches import Batch, Shape
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID, ITEM_ID

STEPS = 150
MOST_LEARNED = (
    0.25  # share of the first loss that may go: hiding a place now and then by its own event earns a few per cent
)


def sessions_are_asked_about_their_own_events(trial: Trial) -> None:
    """What is asked at a place is an event of the place's session, at places that hold an event or hide one."""
    sessions = chains(20, NUM_ITEMS)
    own_S = torch.arange(20, dtype=torch.int32) + FIRST_ID
    sessions.events[ITEM_ID].copy_(own_S.repeat_interleave(sessions.lengths))
    batch = _batch(trial.model(), sessions, seed=0)
    asked_N = batch.asked_N[batch.weight_N > 0]
    require(len(asked_N) > 0, "It asks about nothing.")
    inside_N = batch.layout.segments_BL.flatten()[asked_N] > 0
    require(bool(inside_N.all()), "It asks at places of padding.")
    target_N = batch.target_N[batch.weight_N > 0]
    session_N = batch.layout.session_BL.flatten()[asked_N]
    wrong_N = (target_N > 0) & (target_N != own_S[session_N])
    require(not bool(wrong_N.any()), f"At {int(wrong_N.sum())} of {len(wrong_N)} places it asks about another session.")
    total = float(batch.weight_N.sum())
    require(
        abs(total - 1) < 1e-4 and bool((batch.weight_N >= 0).all()),
        f"Weights of predictions sum to {total:.6g}, not 1.",
    )


def all_chance_comes_from_the_generator(trial: Trial) -> None:
    """The same generator gives the same batch, also after other draws in the process."""
    model, sessions = trial.model(), chains(20, NUM_ITEMS)
    torch.manual_seed(1)
    first, state = _batch(model, sessions, seed=5), torch.get_rng_state()
    torch.manual_seed(2)
    second = _batch(model, sessions, seed=5)
    pairs = zip(first.tensors(), second.tensors(), strict=True)
    same = all(torch.equal(one.nan_to_num(-1), two.nan_to_num(-1)) for one, two in pairs)
    require(same, "It does not: draw from the generator that `batch` is given.")
    torch.manual_seed(1)
    require(torch.equal(state, torch.get_rng_state()), "It draws from the generator of the process, too.")


def a_batch_of_fixed_size_holds_all(trial: Trial) -> None:
    """On a GPU the host sizes a batch beforehand: each session has `drops` events less than places there, never fewer."""
    model, sessions = trial.model(), chains(20, NUM_ITEMS)
    wanted = int(_batch(model, sessions, seed=0).layout.inside_BL.sum())
    places_S = (sessions.lengths - model.objective.drops).clamp(min=0)
    for flat in {False, model.flat}:
        shape = Shape.of(places_S, flat)
        layout = model.training_batch(sessions, torch.Generator().manual_seed(0), shape).layout
        held = int(layout.inside_BL.sum())
        require(held == wanted, f"It lays out {wanted} places and says {shape.num_places}: `drops` is too large.")


def nothing_is_learned_of_random_items(trial: Trial) -> None:
    """Of items drawn independently nothing can be learned: a loss that falls sees what it is asked about."""
    model = trial.model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    costs = []
    for step in range(STEPS):
        loss = model(_batch(model, _random(60, seed=step), seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(float(loss.detach()))
    first, last = sum(costs[:5]) / 5, sum(costs[-5:]) / 5
    require(last > (1 - MOST_LEARNED) * first, f"In {STEPS} steps it fell from {first:.3g} to {last:.3g}.")


def histories_of_any_length_have_a_state(trial: Trial) -> None:
    """Each history has one finite state from which what follows is predicted, also one of a single event."""
    model, sessions = trial.model(), chains(6, NUM_ITEMS)
    with torch.no_grad():
        for dropped in range(6):
            h_SD = model.states(sessions.drop_last(dropped))
            require(len(h_SD) == 6 and bool(h_SD.isfinite().all()), f"Histories of {6 - dropped} events have none.")


LAWS: tuple[Law, ...] = (
    sessions_are_asked_about_their_own_events,
    all_chance_comes_from_the_generator,
    histories_of_any_length_have_a_state,
    a_batch_of_fixed_size_holds_all,
    nothing_is_learned_of_random_items,
    *models.LAWS,
)


def _batch(model: SequenceModel, sessions: Sessions, seed: int) -> Batch:
    return model.training_batch(sessions, torch.Generator().manual_seed(seed))


def _random(count: int, seed: int) -> Sessions:
    """Sessions like chains, of items drawn uniformly and independently."""
    sessions = chains(count, NUM_ITEMS)
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(NUM_ITEMS, (len(sessions.items),), generator=generator) + FIRST_ID
    sessions.events[ITEM_ID].copy_(items.to(sessions.items.dtype))
    sessions.events["type"].copy_(torch.full_like(sessions.events["type"], FIRST_ID))
    sessions.events["price"].zero_()
    return sessions
