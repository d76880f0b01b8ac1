"""What a model can be put together from, and what goes with what: a combination that would leak or fail is refused."""

from __future__ import annotations

from typing import Any

from modeling import bodies, heads, losses, objectives
from modeling.bodies import _table
from modeling.config import NEXT_ITEM, Choice, ModelConfig
from schemas import plugins
from schemas.errors import InputError, parse, unknown

PACKAGES = {"body": bodies, "objective": objectives, "loss": losses, "head": heads}


def check(config: ModelConfig) -> None:
    """Raise InputError where names, options or their combination cannot work, with what would."""
    for kind, choice in (("body", config.body), ("objective", config.objective), ("loss", config.loss)):
        _check_options(kind, choice)
    for head in config.heads.values():
        _check_options("head", head)
    body = body_class(config.body.name)
    objective = plugins.find(objectives, config.objective.name)
    if objective.direction not in body.directions:
        works = [one for one in plugins.names(objectives) if plugins.find(objectives, one).direction in body.directions]
        suited = [name for name in plugins.names(bodies) if goes_together(name, config.objective.name)]
        raise InputError(
            f"Body {config.body.name!r} cannot be trained with objective {config.objective.name!r}, which needs "
            f"{objective.direction!r} attention: the body would see what it is asked about, or not "
            f"what it is to learn from. Objectives for this body: "
            f"{', '.join(works)}. Bodies for this objective: {', '.join(suited)}."
        )
    if objective.needs_next_item and NEXT_ITEM not in config.heads:
        raise InputError(
            f"Objective {config.objective.name!r} learns from what the head next_item proposes, which is not among the heads: "
            f"{', '.join(config.heads)}. Add it, or take another objective."
        )
    if config.inputs.positions == "rotary":
        if not body.rotary:
            rotary = [name for name in plugins.names(bodies) if body_class(name).rotary]
            raise InputError(
                f"Body {config.body.name!r} has no rotary positions: set inputs.positions to none, end or forward, or take "
                f"one of {', '.join(rotary)}."
            )
        if config.body.dim // config.body.num_heads % 2:
            raise InputError(
                f"Rotary positions need an even head size, got {config.body.dim // config.body.num_heads}."
            )
    if config.loss.negatives.corrected and config.loss.name != "sampled_softmax":
        raise InputError(f"loss.negatives.corrected goes with loss sampled_softmax only, got {config.loss.name!r}.")


def goes_together(body: str, objective: str) -> bool:
    """Whether a body can be trained with an objective without a leak."""
    return plugins.find(objectives, objective).direction in body_class(body).directions


def body_class(name: str) -> type[bodies.Body]:
    """The body of that name: a built-in one, one's own, or a further model type of transformers (`bodies/_table.py`).

    Raises:
        InputError: when there is none, with the names and how to add one.
    """
    listed = plugins.names(bodies)
    if name not in listed and name in _table.MORE:
        return _table.part(name)
    try:
        body: type[bodies.Body] = plugins.find(bodies, name)
    except InputError as error:
        if name in listed:
            raise
        more = f"Further model types of Hugging Face transformers, each by its name: {', '.join(sorted(_table.MORE))}."
        raise InputError(f"{error} {more} {_table.HOW_TO_ADD}") from None
    return body


def build(kind: str, choice: Choice, *given: Any) -> Any:
    """The body, objective or head that was chosen, with its options."""
    thing = _find(kind, choice.name)
    return thing(*given, **dict(parse(plugins.options_of(thing), choice.options, f"{kind} {choice.name}")))


def _find(kind: str, name: str) -> Any:
    return body_class(name) if kind == "body" else plugins.find(PACKAGES[kind], name)


def _check_options(kind: str, choice: Choice) -> None:
    known = plugins.options_of(_find(kind, choice.name))
    for name in choice.options:
        if name not in known.model_fields:
            shared = [field for field in type(choice).model_fields if field != "options"]
            raise unknown(f"key of {kind} {choice.name}", name, [*known.model_fields, *shared])
    parse(known, choice.options, f"{kind} {choice.name}")
