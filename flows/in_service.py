"""Which model answers for a dataset, and changing that by hand: `overnight recommend`, `promote` and `rollback`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from modeling.evaluation.pointer import Champion, champion_of, changing, names_in_service, put_in_service, set_hold
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import load_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema

MODELS, EVALUATIONS, SESSIONS = "models", "evaluations", "sessions"
NAME = re.compile(rf"{MODELS}/[0-9a-f]+")


@dataclass(frozen=True)
class InService:
    """The name of the model in service, or `none`; whether this run changed that; and the evaluated model whose refit it is."""

    model: str
    changed: bool
    refit_of: str = ""


def name_of(dataset: str) -> str:
    """The name by which a model is in service: that of the dataset, also where its YAML file is given.

    A name of which there is no file stays as it is: the dataset may be described elsewhere.
    """
    try:
        return load_dataset(dataset).name
    except InputError:
        if Path(dataset).suffix in (".yaml", ".yml"):
            raise
        return dataset


def model_of(artifacts: Artifacts, model: str) -> Manifest:
    """The model `models/1f2e`; `1f2e` alone will do.

    Raises:
        InputError: when it is not there, not whole, or no model.
    """
    name = model if "/" in model else f"{MODELS}/{model}"
    if not NAME.fullmatch(name):  # `artifacts.get` would take a pattern, or a path to what is no model
        raise InputError(f"{model!r} is no model: give one such as models/1f2e (looked in {artifacts.root}).")
    return artifacts.get(name)


def model_folder(artifacts: Artifacts, dataset: str, model: str | None = None) -> Path:
    """The folder of the model asked for, by name or as a folder, else of the one in service for the dataset.

    Raises:
        InputError: when there is none, with the datasets that have one.
    """
    if model:
        folder = Path(model)
        return folder if (folder / "config.json").is_file() else model_of(artifacts, model).folder
    name = name_of(dataset)
    champion = champion_of(artifacts, name)
    if champion is None:
        raise _nothing(artifacts, name)
    return artifacts.get(champion.model).folder


def newest_sessions(artifacts: Artifacts, dataset: str) -> Path:
    """The folder of the sessions of a dataset that were prepared last: with the newest test day, and of these the newest.

    Raises:
        InputError: when there are none.
    """
    name = name_of(dataset)
    found = (artifacts.read_manifest(SESSIONS, path.name) for path in (artifacts.root / SESSIONS).glob("*"))
    made = [manifest for manifest in found if manifest and manifest.parameters["dataset"]["name"] == name]
    if not made:
        raise InputError(
            f"There are no prepared sessions of {name!r} in {artifacts.root}: `overnight prepare` makes them."
        )
    return max(made, key=lambda manifest: (str(manifest.facts["test_day"]), manifest.created)).folder


def keeps_seen(artifacts: Artifacts, folder: Path) -> bool:
    """Whether a model recommends what a session holds again: as it was measured last, so that it does what was promised.

    One that was never measured does not.
    """
    model = artifacts.read_manifest(MODELS, folder.name)
    measured = (f"{MODELS}/{folder.name}", model.facts.get("refit_of") if model else None)
    evaluations = (artifacts.root / EVALUATIONS).glob("*")
    for path in sorted(
        evaluations, key=lambda path: path.stat().st_mtime_ns, reverse=True
    ):  # as a rule it is the first
        evaluation = artifacts.read_manifest(EVALUATIONS, path.name)
        if evaluation and evaluation.parents[0] in measured:
            return not evaluation.facts["filter_seen"]
    return False


def promote(artifacts: Artifacts, dataset: str, model: str, because: str = "") -> Champion:
    """Put a model into service, against a comparison's verdict too; returns the pointer afterwards.

    Raises:
        InputError: when it is in service already, of another dataset, damaged, or this code cannot read it.
    """
    name = name_of(dataset)
    chosen = _usable(artifacts, name, model)
    with changing(artifacts, f"promote for {name}"):
        try:
            now = champion_of(artifacts, name)
        except InputError:  # what cannot be read is replaced, and kept under another name
            now = None
        if now and now.model == chosen.name:
            raise InputError(f"{chosen.name} is in service for {name!r} already.")
        return put_in_service(artifacts, name, chosen.name, by="promote", because=because)


def change(artifacts: Artifacts, dataset: str, model: str | None, hold: bool | None, because: str = "") -> Champion:
    """`promote` where a model is named, then `keep` where a hold is to begin or to end; returns the pointer afterwards.

    Raises:
        InputError: as these do; what cannot be done whole is not begun.
    """
    name = name_of(dataset)
    with changing(artifacts, f"promote for {name}"):
        now = _held(artifacts, name)
        if model is not None and hold is not None and hold == now:
            raise InputError(f"{name!r} is {'held already' if now else 'not held'}: leave out --hold and --release.")
        champion = promote(artifacts, dataset, model, because) if model is not None else None
        return keep(artifacts, dataset, hold, because) if hold is not None or champion is None else champion


def _held(artifacts: Artifacts, name: str) -> bool:
    try:
        champion = champion_of(artifacts, name)
    except InputError:
        return False
    return bool(champion and champion.hold)


def keep(artifacts: Artifacts, dataset: str, on: bool | None, because: str = "") -> Champion:
    """Have nights leave the model in service where it is, or not any more; returns the pointer afterwards.

    Nights go on to prepare, train and compare. `promote` and `rollback` change what is in service all the same.

    Raises:
        InputError: when nothing is in service, it is held already, or there is no hold to end.
    """
    name = name_of(dataset)
    if champion_of(artifacts, name) is None:
        raise _nothing(artifacts, name)
    return set_hold(artifacts, name, bool(on), because)


def rollback(artifacts: Artifacts, dataset: str, because: str = "") -> Champion:
    """Put the model back that was in service before; returns the pointer afterwards. Again, it goes one step further back.

    A hold goes on, of the model that is put back. What is taken out comes back by `promote` only: the same night run again does
    not undo this.

    Raises:
        InputError: when there was none before, or it cannot be used any more.
    """
    name = name_of(dataset)
    with changing(artifacts, f"rollback for {name}"):
        now = champion_of(artifacts, name)
        if now is None:
            raise _nothing(artifacts, name)
        if now.previous is None:
            raise InputError(
                f"No model was in service for {name!r} before {now.model}. Name the one to be: "
                f"`overnight promote MODEL --dataset {name}`."
            )
        if not (artifacts.root / now.previous).is_dir():
            raise InputError(
                f"{now.previous}, which was in service for {name!r} before {now.model}, has been removed. Name the one to be: "
                f"`overnight promote MODEL --dataset {name}`; of models before the last, `overnight prune` keeps the newest."
            )
        before = _usable(artifacts, name, now.previous)
        return put_in_service(artifacts, name, before.name, by="rollback", because=because)


def still_held(champion: Champion) -> str:
    """What to say of a hold that goes on for another model than the one it began with."""
    return (
        f"The hold goes on, now of {champion.model}: {champion.hold}. Nights do not replace it; "
        "`overnight promote --release` ends that."
    )


def further(champion: Champion) -> str:
    """What to say after a rollback of what a further one would do."""
    if champion.previous is None:
        return "No model was in service before: a further rollback is refused. `overnight promote MODEL` names one."
    return f"A further rollback puts back {champion.previous}."


def _usable(artifacts: Artifacts, dataset: str, model: str) -> Manifest:
    found = model_of(artifacts, model)
    artifacts.get(found.name, contents=True)
    schema = FeatureSchema.read(found.folder / "schema.json")
    if schema.dataset != dataset:
        raise InputError(f"{found.name} is a model of {schema.dataset!r}, not of {dataset!r}.")
    from modeling.model import SequenceModel

    SequenceModel.load(found.folder)
    return found


def _nothing(artifacts: Artifacts, name: str) -> InputError:
    names = names_in_service(artifacts)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    made = [
        found for path in (artifacts.root / MODELS).glob("*") if (found := artifacts.read_manifest(MODELS, path.name))
    ]
    made = [model for model in made if _dataset_of(model) == name]
    todo = "Run `overnight retrain` first, or name a model by --model."
    if made:
        newest = max(made, key=lambda model: model.created).name
        todo = (
            f"{newest} was made and is not in service: its report says why. To use it all the same: "
            f"`overnight promote {newest}`, or name it by --model."
        )
    return InputError(
        f"Nothing is in service for {name!r} in {artifacts.root}.{hint} In service: {', '.join(names) or 'nothing'}. {todo}"
    )


def _dataset_of(model: Manifest) -> str:
    """The dataset of a model; empty where its folder does not say."""
    try:
        return FeatureSchema.read(model.folder / "schema.json").dataset
    except (InputError, OSError):
        return ""
