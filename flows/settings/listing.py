"""What steps a dataset and what parts a model can name, for people to choose from in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from pydantic import BaseModel

from schemas.dataset import known, load_dataset
from schemas.errors import InputError
from schemas.plugins import Option, describe, describe_fields

Entry = dict[str, Any]  # name, summary, options, and what else there is to say


def for_datasets() -> dict[str, list[Entry]]:
    """Steps, checks and encoders, also those of the folders in use and of packages."""
    from preprocessing import checks, encoders, steps

    packages = {"steps": steps, "checks": checks, "features": encoders}
    return {kind: [asdict(one) for one in describe(package)] for kind, package in packages.items()}


def for_models() -> dict[str, list[Entry]]:
    """Presets, bodies with the objectives they go with, objectives, losses, heads and baselines."""
    from modeling import bodies, heads, losses, objectives, parts
    from modeling.evaluation import baselines
    from schemas import plugins

    def _is_sampled(name: str) -> bool:
        return losses.is_sampled(plugins.find(losses, name))

    goals = plugins.names(objectives)
    return {
        "presets": _presets(),
        "bodies": [
            asdict(one) | {"objectives": [goal for goal in goals if _can_be(parts.goes_together, one.name, goal)]}
            for one in describe(bodies)
        ],
        "objectives": [asdict(one) for one in describe(objectives)],
        "losses": [
            asdict(one) | {"scores": "sampled items" if _can_be(_is_sampled, one.name) else "all items"}
            for one in describe(losses)
        ],
        "heads": [asdict(one) for one in describe(heads)],
        "baselines": [asdict(one) for one in describe(baselines)],
    }


def datasets() -> dict[str, Entry]:
    """The datasets that can be named, where to get them, on what terms, and where their YAML comes from."""
    return {
        name: _read_of(partial(_about, name), "title") | {"origin": place.origin}
        for name, place in sorted(known().items())
    }


def _about(name: str) -> Entry:
    dataset = load_dataset(name)
    return {"title": dataset.title, "obtain": dataset.obtain, "terms": dataset.terms}


def _presets() -> list[Entry]:
    from modeling.presets import FOLDER, read_preset
    from schemas.places import places

    def about(name: str) -> Entry:
        preset = read_preset(name)
        return {"summary": preset.title, "paper": preset.paper, "deviates": list(preset.deviates)}

    return [
        {"name": name} | _read_of(partial(about, name), "summary") | {"origin": place.origin}
        for name, place in sorted(places(FOLDER).items())
    ]


def _read_of(read: Callable[[], Entry], key: str) -> Entry:
    """What a file says, or why it cannot be used."""
    try:
        return read()
    except InputError as error:
        blank = {"obtain": "", "terms": ""} if key == "title" else {}
        return blank | {key: f"cannot be used: {error}"}


def _can_be(holds: Callable[..., bool], *names: str) -> bool:
    """Whether something holds of parts; it does not of those that cannot be used."""
    try:
        return holds(*names)
    except InputError:
        return False


def of_all() -> dict[str, tuple[Option, ...]]:
    """By kind, the settings that all of that kind share."""
    from modeling import config

    own: dict[str, type[BaseModel]] = {
        "bodies": config.BodyConfig,
        "losses": config.LossConfig,
        "heads": config.HeadConfig,
    }
    shared = {
        kind: tuple(option for option in describe_fields(model) if option.name not in ("name", "options", "negatives"))
        for kind, model in own.items()
    }
    negatives = describe_fields(config.NegativesConfig)
    return shared | {
        "losses": tuple(Option(f"negatives.{o.name}", o.type, o.default, o.description) for o in negatives)
    }


def lines(
    entries_by_kind: Mapping[str, list[Entry]], shared: Mapping[str, Iterable[Option]] | None = None
) -> Iterator[str]:
    """One line each, with the options below; those that all of a kind share stand first."""
    for kind, entries in entries_by_kind.items():
        yield f"{kind}:"
        yield from (_option(asdict(option), 4) for option in (shared or {}).get(kind, ()))
        for entry in entries:
            yield f"  {entry['name']}: {entry['summary']}"
            yield f"      from: {entry['origin']}"
            yield from (_option(option, 6) for option in entry.get("options", ()))
            for key, value in entry.items():
                if key == "deviates":
                    yield from (f"      deviates: {sentence}" for sentence in value)
                elif key not in ("name", "summary", "options", "origin"):
                    yield f"      {key}: {', '.join(value) if isinstance(value, list) else value}"


def _option(option: Entry, indent: int) -> str:
    default = f" = {option['default']}" if option["default"] else ", required"
    return f"{' ' * indent}{option['name']} ({option['type']}{default})  {option['description']}"
