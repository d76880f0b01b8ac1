"""`overnight check FOLDER`: every part of a folder is held to the laws of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.laws import NotTriedError, broken
from flows.settings.layers import Groups, pile
from modeling.config import Choice
from schemas import plugins
from schemas.dataset import SHIPPED, Dataset, load_dataset
from schemas.errors import InputError, parse
from schemas.importing import lines_of
from schemas.options import options_of
from schemas.places import FILES, KINDS, Place, of_people, places, searched, singular, use

Say = Callable[[str], None]


@dataclass
class Verdict:
    """What was checked, by "kind/name": a line for every law that is broken, or why a part could not be tried."""

    folder: Path
    broken: dict[str, list[str]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    not_tried: dict[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {"folder": str(self.folder), "broken": self.broken, "kept": self.kept, "not_tried": self.not_tried}


def check_folder(folder: Path, dataset: str | None = None, say: Say = print, source: str | None = None) -> Verdict:
    """Hold all parts of a folder to their laws, with the options and columns of a dataset (a YAML file) if one is given.

    Raises:
        InputError: for a folder or a dataset that is not there.
    """
    (folder, *_) = searched([folder])
    named = _read(dataset, source) if dataset else None
    folders = tuple(map(str, searched([folder, *(named.plugins if named else ())])))
    named = named.model_copy(update={"plugins": folders}) if named else None
    use(folders)
    verdict = Verdict(folder)
    for kind in KINDS:
        for place in _own(kind, folder, verdict, say):
            _check(kind, place, folders, named, verdict, say)
    whole = len(verdict.kept) + len(verdict.broken) + len(verdict.not_tried)
    say(
        f"{whole} {'part' if whole == 1 else 'parts'} in {folder}: {len(verdict.kept)} keep every law, "
        f"{len(verdict.broken)} break one, {len(verdict.not_tried)} could not be tried."
    )
    return verdict


def _read(dataset: str, source: str | None) -> Dataset:
    read = load_dataset(dataset)
    try:
        return read.at(source)
    except InputError:  # without its files, it still has options and names of columns
        return read


def _own(kind: str, folder: Path, verdict: Verdict, say: Say) -> Iterator[Place]:
    """The parts of a folder; what is wrong with the folder itself is reported under the kind."""
    try:
        yield from [place for place in of_people(kind) if place.folder == folder]
    except InputError as error:
        _report(f"{kind}", [str(error)], verdict, say)


def _check(
    kind: str, place: Place, folders: tuple[str, ...], named: Dataset | None, verdict: Verdict, say: Say
) -> None:
    part = f"{kind}/{place.name}"
    try:
        lines = list(dict.fromkeys(_broken(kind, place.name, folders, named)))
    except InputError as error:
        lines = [str(error)]
    except NotTriedError as reason:
        verdict.not_tried[part] = str(reason)
        say(f"{part}: not tried. {reason}")
        return
    except Exception as error:  # somebody else's code: whatever it raises is the answer
        lines = [_where(error)]
    _report(part, lines, verdict, say)


def _report(part: str, lines: list[str], verdict: Verdict, say: Say) -> None:
    if not lines:
        verdict.kept.append(part)
        say(f"{part}: keeps every law.")
        return
    verdict.broken[part] = lines
    say(f"{part}: breaks")
    for line in lines:
        say(f"  - {line}")


def _where(error: BaseException) -> str:
    """An error of somebody's code in one line, with the line of their file where there is one."""
    place = next((f"{file}, line {line}: " for file, line in lines_of(error)), "")
    return f"{place}{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _broken(kind: str, name: str, folders: tuple[str, ...], named: Dataset | None) -> Iterator[str]:
    """What the trials of one part break."""
    if kind in FILES:
        yield from _read_file(kind, name)
    elif kind in ("steps", "checks", "encoders"):
        yield from _of_preprocessing(kind, name, folders, named)
    else:
        yield from _of_modeling(kind, name, named)


def _read_file(kind: str, name: str) -> Iterator[str]:
    """A dataset has only to be read and to fit; the model of a preset is tried."""
    if kind == "presets":
        from flows.laws import presets

        yield from broken(presets.LAWS, presets.trial_of(name), _where)
    else:
        load_dataset(str(places(SHIPPED)[name].file))


def _of_preprocessing(kind: str, name: str, folders: tuple[str, ...], named: Dataset | None) -> Iterator[str]:
    from flows.laws import checks, encoders, steps
    from flows.laws.sample import columns_of
    from preprocessing import checks as checks_package
    from preprocessing import encoders as encoders_package
    from preprocessing import steps as steps_package

    package = {"steps": steps_package, "checks": checks_package, "encoders": encoders_package}[kind]
    thing = plugins.find(package, name, folders)
    if kind == "encoders":
        features = _features(name, named) or [{"encode": [{"name": name, "options": _options(kind, name, thing)}]}]
        for trial in encoders.trials_of(thing, name, features, folders):
            yield from broken(encoders.LAWS, trial, _where)
        return
    entries = [entry.options for entry in getattr(named, kind) if entry.name == name] if named else []
    for options in entries or [_options(kind, name, thing)]:
        part = parse(thing, options, f"{singular(kind)} {name}")
        laws, trial_of = (steps.LAWS, steps.Trial.of) if kind == "steps" else (checks.LAWS, checks.Trial.of)
        yield from broken(laws, trial_of(part, columns_of(named), named if entries else None), _where)


def _features(name: str, named: Dataset | None) -> list[dict[str, Any]]:
    """The features of a dataset that begin with an encoder, as they are written."""
    features = named.features.values() if named else ()
    return [{"encode": [entry.model_dump() for entry in one.encode]} for one in features if one.encode[0].name == name]


def _of_modeling(kind: str, name: str, named: Dataset | None) -> Iterator[str]:
    from flows.laws import baselines, bodies, heads, models, objectives
    from modeling.evaluation import baselines as baselines_package
    from modeling.parts import PACKAGES

    if kind == "baselines":
        _options(kind, name, plugins.find(baselines_package, name))
        yield from broken(baselines.LAWS, baselines.Trial(name), _where)
        return
    thing = plugins.find(PACKAGES[singular(kind)], name)
    laws = {"objectives": objectives.LAWS, "heads": heads.LAWS}.get(kind, models.LAWS)
    for options in _chosen(kind, name, named) or [_options(kind, name, thing)]:
        parse(options_of(thing), options, f"{singular(kind)} {name}")
        if kind == "bodies":
            for trial in bodies.trials_of(name, **options):
                lines = broken(bodies.LAWS, trial, _where)
                yield from lines
                if lines:
                    return
        yield from broken(laws, models.trial_of(kind, name, options), _where)


def _chosen(kind: str, name: str, named: Dataset | None) -> list[dict[str, Any]]:
    """The options that the defaults of a dataset give a part of models, once for each time that they name it."""
    if named is None:
        return []
    groups = parse(Groups, pile(named.defaults), f"defaults of {named.name}")
    choices: dict[str, Iterable[Choice]] = {
        "bodies": [groups.body],
        "objectives": [groups.objective],
        "losses": [groups.loss],
        "heads": groups.heads.values(),
    }
    return [choice.options for choice in choices[kind] if choice.name == name]


def _options(kind: str, name: str, thing: Any) -> dict[str, Any]:
    """Options to try a part with: the examples of those that must be given, the defaults of others.

    Raises:
        NotTriedError: when one must be given and has no example.
    """
    fields = {option: field for option, field in options_of(thing).model_fields.items() if field.is_required()}
    missing = [option for option, field in fields.items() if not field.examples]
    if missing:
        what = f"{', '.join(missing)} must be given: write Field(examples=[...]) in {singular(kind)} {name}"
        raise NotTriedError(f"{what}, or give --dataset YAML that names it.")
    return {option: (field.examples or [None])[0] for option, field in fields.items()}
