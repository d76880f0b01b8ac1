"""What a model can be put together from, and what goes with what: a combination that would leak or fail is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from modeling import bodies, heads, losses, objectives
from modeling.bodies import _table
from modeling.config import NEXT_ITEM, Choice, ModelConfig
from schemas import places, plugins
from schemas.errors import InputError, parse, unknown

PACKAGES = {"body": bodies, "objective": objectives, "loss": losses, "head": heads}


def check(config: ModelConfig, *, trained: bool = False) -> None:
    """Raise InputError where names, options or their combination cannot work, with what would.

    Of a model that is `trained` it does not matter which of its settings training made nothing of.
    """
    for kind, choice in (("body", config.body), ("objective", config.objective), ("loss", config.loss)):
        _check_options(kind, choice)
    for head in config.heads.values():
        _check_options("head", head)
    body = body_class(config.body.name)
    objective = plugins.find(objectives, config.objective.name)
    if objective.direction not in body.directions:
        works = [
            name for name in plugins.names(objectives) if plugins.find(objectives, name).direction in body.directions
        ]
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
    if not trained:
        objective.check(config)
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
    """The body of that name: a built-in one, a person's own, or a further model type of transformers (`bodies/_table.py`).

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


def require(recorded: Mapping[str, Any], config: ModelConfig, where: str) -> None:
    """Compare the parts that a model was trained with, by "kind/name", with those that would be used now.

    A part that is another now is warned of: the weights were learned with the one that is recorded.

    Raises:
        InputError: when one is missing that was not built in, with where it came from and what to do.
    """
    now = plugins.own_parts(config.parts)
    for part in sorted(recorded.keys() | now.keys()):
        kind, _, name = part.partition("/")
        what, used = f"{places.singular(kind)} {name!r}", now.get(part)
        if part not in recorded:
            trained_with, used_now = "one that is built in", now[part].origin
        else:
            was = parse(plugins.OwnPart, recorded[part], f"{where}: own_parts.{part}")
            if used == was or (used and used.content == was.content):
                continue
            if used is None and name not in plugins.names(PACKAGES[places.singular(kind)]):
                raise InputError(_missing(what, part, was, where))
            trained_with = f"{was.origin} (content {was.content})"
            used_now = f"{used.origin} (content {used.content})" if used else "one that is built in"
        warnings.warn(
            f"{where}: the {what} is not the one that this model was trained with, {trained_with}, but {used_now}: its results "
            "may be others. Train again, or load it with the file of then.",
            stacklevel=3,
        )


def _missing(what: str, part: str, was: plugins.OwnPart, where: str) -> str:
    package = was.origin.partition(", ")[0] if ", " in was.origin and not was.origin.endswith(".py") else ""
    named = f"the folder that holds {part}.py by {places.VARIABLE}, or by `plugins:` in the dataset's YAML (--dataset)"
    return (
        f"{where}: this model was trained with the {what} of {was.origin} (content {was.content}), which is not here, and "
        f"a model folder holds no code. {f'Install {package}, or name' if package else 'Name'} {named}."
    )


def _find(kind: str, name: str) -> Any:
    return body_class(name) if kind == "body" else plugins.find(PACKAGES[kind], name)


def _check_options(kind: str, choice: Choice) -> None:
    known = plugins.options_of(_find(kind, choice.name))
    for name in choice.options:
        if name not in known.model_fields:
            shared = [field for field in type(choice).model_fields if field != "options"]
            raise unknown(f"key of {kind} {choice.name}", name, [*known.model_fields, *shared])
    parse(known, choice.options, f"{kind} {choice.name}")
