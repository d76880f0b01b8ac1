"""Whether a model type of transformers without a file of its own obeys the laws of bodies: tried once, tiny, when asked for.

What it passes becomes what the body offers; a type that passes nothing is refused with what failed. It is tried with our
attention first, sessions sharing rows, then with its own, one session a row. Nothing is downloaded, and the generators of
random numbers are left as they were.

L places, D width.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import MODEL_MAPPING
from transformers.utils import logging

from modeling.attention import Direction, Layout
from modeling.bodies._hugging_face import HuggingFace, settings_of
from modeling.config import BodyConfig
from schemas.errors import InputError

DIM, NUM_LAYERS = 16, 4  # types that mix kinds of layers have each among the first four
LENGTHS = (9, 1, 7, 3)
MOST_WEIGHTS = 5_000_000  # where there should be 20,000: a size that BodyConfig has no word for
NEAR = 1e-4
DIRECTIONS: tuple[Direction, ...] = ("causal", "both")


class AnyType(HuggingFace):
    """A model type of transformers that was tried; weights called as in `idle` take no part in its states."""

    idle: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        config: BodyConfig,
        rotary: bool,
        *,
        settings: Annotated[dict[str, Any] | None, Field(description="More of the type's own configuration.")] = None,
    ) -> None:
        try:
            with _failing("cannot be built"):
                super().__init__(config, rotary, **(settings or {}))
        except FailureError as failure:
            raise InputError(
                f"Body {self.model_type!r} {failure}: change body.dim, num_layers, num_heads or settings."
            ) from None
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_of_any_layer(name) not in self.idle)


class FailureError(Exception):
    """A law that a type does not obey."""


def adopt(model_type: str, settings: dict[str, Any] | None = None) -> type[AnyType]:
    """The body that a type makes, with settings of its own.

    Raises:
        InputError: when it obeys the laws in no direction, with what it fails; when it knows no such setting.
    """
    found = _tried(model_type, json.dumps(settings or {}, sort_keys=True))
    if isinstance(found, str):
        raise InputError(f"Body {model_type!r}, a model type of transformers, breaks the laws of bodies: {found}.")
    return found


@lru_cache
def _tried(model_type: str, settings: str) -> type[AnyType] | str:
    """The class of what the type passes, or what it failed."""
    own: dict[str, Any] = json.loads(settings)
    failures: dict[str, str] = {}
    with _unnoticed():
        try:
            _look(model_type, own)
        except FailureError as failure:
            return str(failure)
        for packed, where in ((True, "with sessions sharing rows"), (False, "with a row for each session")):
            try:
                return _passed(model_type, own, packed)
            except FailureError as failure:
                failures[where] = str(failure)
    return _together(failures)


def _together(failures: dict[str, str]) -> str:
    """What failed where, the same said once."""
    if len(set(failures.values())) == 1:
        return next(iter(failures.values()))
    return "; ".join(f"{where}: {failure}" for where, failure in failures.items())


@contextmanager
def _unnoticed() -> Iterator[None]:
    """What a trial draws and complains about stays inside."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(0)
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Whatever somebody else's code raises is an answer too."""
    try:
        yield
    except (FailureError, InputError):
        raise
    except Exception as error:
        raise FailureError(f"{what} ({type(error).__name__}: {' '.join(str(error).split())[:150]})") from error


def _look(model_type: str, own: dict[str, Any]) -> None:
    """Refuse what need not be built."""
    with _failing("its configuration does not take our sizes"):
        settings = settings_of(model_type, _tiny(), own)
    if type(settings) not in MODEL_MAPPING:
        raise FailureError("it has no model that returns hidden states")
    with _failing("its model cannot be found"):
        reads = inspect.signature(MODEL_MAPPING[type(settings)].forward).parameters
    if settings.is_encoder_decoder:
        raise FailureError("it is an encoder with a decoder")
    if "inputs_embeds" not in reads:
        raise FailureError("it reads ids or pictures or sound, not vectors (inputs_embeds)")
    if getattr(settings, "hidden_size", None) != DIM or getattr(settings, "num_hidden_layers", None) != NUM_LAYERS:
        raise FailureError("its configuration has no width or no number of layers to set")


def _passed(model_type: str, own: dict[str, Any], packed: bool) -> type[AnyType]:
    """The class of what a type passes, in at least one direction."""
    known = {"__module__": __name__, "model_type": model_type, "packed": packed}
    tried = type(model_type, (HuggingFace,), known)
    with _failing("it cannot be built"):
        with torch.device("meta"):
            num_weights = sum(parameter.numel() for parameter in tried(_tiny(), False, **own).parameters())
        if num_weights > MOST_WEIGHTS:
            raise FailureError(f"it has {num_weights:,} weights at width {DIM}: give it smaller sizes under `settings`")
        body: HuggingFace = _loud(tried(_tiny(), False, **own))
    failures: dict[str, str] = {}
    passed: set[Direction] = set()
    for direction in DIRECTIONS:
        try:
            with _failing("it does not run"):
                _obey(body, direction)
            passed.add(direction)
        except FailureError as failure:
            failures[direction] = str(failure)
    if not passed:
        raise FailureError(_together(failures))
    reached: dict[bool, set[str]] = {True: set(), False: set()}
    for name, parameter in body.named_parameters():
        reached[parameter.grad is not None].add(_of_any_layer(name))
    known |= {
        "directions": frozenset(passed),
        "ordered": _tells_order(body, passed, own),
        "rotary": _turns(body, min(passed)),
        "idle": frozenset(reached[False] - reached[True]),
    }
    return cast(type[AnyType], type(model_type, (AnyType,), known))


def _tiny(num_layers: int = NUM_LAYERS) -> BodyConfig:
    return BodyConfig(name="probe", dim=DIM, num_heads=2, num_layers=num_layers, dropout=0.0)


def _loud(body: HuggingFace) -> HuggingFace:
    """With weights large enough for every part to have a say."""
    for parameter in body.parameters():
        if parameter.requires_grad and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return body.eval()


def _obey(body: HuggingFace, direction: Direction) -> None:
    """Raise FailureError with the first law that the body breaks in a direction."""
    sessions = [torch.randn(length, DIM) for length in LENGTHS]
    long, other = sessions[0], torch.randn(LENGTHS[0], DIM)
    before, *together = _states(body, sessions, direction)
    if not all(_same(one, again) for one, again in zip(together, _states(body, sessions, direction)[1:], strict=True)):
        raise FailureError("the same sessions give other states")
    for one, state in zip(sessions, [before, *together], strict=True):
        if not _same(_states(body, [one], direction)[0], state):
            neighbours = "an event changes the states of other sessions in its row"
            raise FailureError(neighbours if body.packed else "padding changes states")
    later = _states(body, [torch.cat([long[:5], other[5:]])], direction)[0]
    if _same(later[:5], before[:5]) is not (direction == "causal"):
        raise FailureError(f"later events {'change' if direction == 'causal' else 'do not change'} a state")
    if _same(_states(body, [torch.cat([other[:1], long[1:]])], direction)[0][3], before[3]):
        raise FailureError("earlier events do not change a state")
    _learn(body, sessions, direction)


def _learn(body: HuggingFace, sessions: list[Tensor], direction: Direction) -> None:
    """Raise FailureError unless gradients reach what is read and are finite; they stay with the weights."""
    read = [one.clone().requires_grad_() for one in sessions]
    torch.cat(_states(body.train(), read, direction)).square().sum().backward()
    body.eval()
    if any(one.grad is None for one in read):
        raise FailureError("no gradient reaches the events")
    gradients = [one.grad for one in [*read, *body.parameters()] if one.grad is not None]
    if not all(gradient.isfinite().all() for gradient in gradients):
        raise FailureError("gradients are not finite")


def _tells_order(body: HuggingFace, directions: set[Direction], own: dict[str, Any]) -> bool:
    """Whether the last state knows, without positions, in which order two events came before.

    Looking back only, two layers always do, so one is asked; a type that cannot have one is held not to.
    """
    direction: Direction = "both" if "both" in directions else "causal"
    try:
        with _failing("one layer is too few"):
            asked = body if direction == "both" else _loud(type(body)(_tiny(num_layers=1), False, **own))
    except FailureError:
        return False
    events = torch.randn(3, DIM)
    state, swapped = (_states(asked, [one], direction)[0][-1] for one in (events, events[[1, 0, 2]]))
    return not _same(state, swapped)


def _turns(body: HuggingFace, direction: Direction) -> bool:
    """Whether rotary positions change its states, and the laws hold with them."""
    events = torch.randn(5, DIM)
    still = _states(body, [events], direction)[0]
    body.rotates = True
    try:
        with _failing("it does not turn"):
            turned = _states(body, [events], direction)[0]
            _obey(body, direction)
    except FailureError:
        return False
    return not _same(still, turned)


def _states(body: HuggingFace, sessions: list[Tensor], direction: Direction) -> list[Tensor]:
    """The states of each session: all in one row with some padding, or each in its own."""
    numbers = [torch.full((len(one),), number) for number, one in enumerate(sessions, start=1)]
    places = [torch.arange(len(one)) for one in sessions]
    if body.packed:
        segments, positions, x = (torch.cat(some)[None] for some in (numbers, places, sessions))
        segments, positions = (torch.nn.functional.pad(some, (0, 2)) for some in (segments, positions))
        x = torch.nn.functional.pad(x, (0, 0, 0, 2))
    else:
        segments, positions, x = (pad_sequence(some, batch_first=True) for some in (numbers, places, sessions))
    h = body(x, Layout(segments, positions, direction))
    if h.shape != x.shape or h.dtype != x.dtype:
        raise FailureError(f"its states are {list(h.shape)} of {h.dtype} for inputs {list(x.shape)} of {x.dtype}")
    if not h.isfinite().all():
        raise FailureError("its states are not finite")
    return list(h[segments > 0].split([len(one) for one in sessions]))


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= NEAR * one.abs().max().clamp(min=1))


def _of_any_layer(name: str) -> str:
    """A weight's name without the number of its layer."""
    return re.sub(r"\b\d+\b", "*", name)
