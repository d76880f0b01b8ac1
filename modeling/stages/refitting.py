"""A model that is to be promoted -> the same model, trained again with the sessions that it was tested on.

What was evaluated is the recipe: settings, parent, number of epochs. The refitted model follows it on all sessions and is put
into service in the place of the evaluated one. It is measured for the first time the night after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modeling.config import Goal, ModelConfig, SplitConfig, TrainingConfig
from modeling.evaluation.pointer import champion_of
from modeling.stages.identity import code_of_training
from modeling.stages.job import Job, Refit
from modeling.stages.parent import Parent
from modeling.stages.training import MODELS, make
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, damaged_files, identify
from schemas.errors import DivergedError, InputError
from schemas.progress import Progress as Numbers

Report = Callable[[Numbers | str], object]


def refit(artifacts: Artifacts, comparison: Manifest, progress: Report = print) -> Manifest | None:
    """The candidate of a comparison that says to promote it, refitted; or the refit that was made before.

    Its identity is made of that of the candidate. Facts are those of a training with `refit_of`, the candidate; `night`, the
    day that was tested on; and `test_day`, the day after, before which it learned. None, which `progress` is given the reason
    of, where the candidate itself is in service by this comparison, what it started from is gone, or the refit diverges: a
    night does not fail by it.
    """
    if not comparison.facts["promote"]:
        return None
    model = artifacts.get(comparison.facts["candidate"])
    artifact_id = identify(
        code=code_of_training(ModelConfig.model_validate(model.parameters["model"])),
        parents=(*model.parents, model.name),
        made_with=plugins.contents(ModelConfig.model_validate(model.parameters["model"]).parts),
    )
    if existing := artifacts.find(MODELS, artifact_id):
        progress(f"{existing.name}, the refit of {model.name}, is there already.")
        return existing
    if not _is_due(artifacts, comparison, model, progress):
        return None
    parent = _parent(artifacts, model)
    if model.facts["start_from"] and parent is None:
        progress(
            f"{model.name} is not refitted: {model.facts['start_from']}, which it started from, is missing or damaged."
        )
        return None
    job = Job(
        artifacts,
        artifact_id,
        artifacts.get(model.parents[0]),
        ModelConfig.model_validate(model.parameters["model"]),
        TrainingConfig.model_validate(model.parameters["training"]),
        SplitConfig.model_validate(model.parameters["split"]),
        Goal.model_validate(model.parameters["goal"]),
        parent,
        model.facts["by_shape"],
        recipe_of(model),
    )
    try:
        return make(job, progress)
    except DivergedError as error:
        progress(f"{model.name} is not refitted, and stays as it was evaluated: {error}")
        return None


def _is_due(artifacts: Artifacts, comparison: Manifest, model: Manifest, say: Report) -> bool:
    """Whether the pointer is the one that the comparison was made against, so that the model will be put into service."""
    try:
        champion = champion_of(artifacts, comparison.facts["dataset"])
    except InputError:  # it is damaged, and will be replaced
        return True
    if champion and champion.model == model.name:
        say(f"{model.name} is in service as it was evaluated: it is not refitted.")
    return champion is None or (
        champion.model == comparison.facts["champion"] and not champion.applied(comparison.name)
    )


def recipe_of(model: Manifest) -> Refit:
    """How many epochs gave a model its weights, of how many that its learning rates were planned for."""
    facts, training = model.facts, model.parameters["training"]
    first_day = facts.get("first_day") if facts["start_from"] else None
    if choice := facts.get("choice"):
        return Refit(model.name, choice["epochs"], choice["of_epochs"], first_day)
    epochs = facts["epochs"]
    done = max(1, round(epochs * facts["best_step"] / facts["planned_steps"]))
    of_epochs: Any = epochs if first_day is not None else training["epochs"]
    return Refit(model.name, done, of_epochs, first_day)


def _parent(artifacts: Artifacts, model: Manifest) -> Parent | None:
    name = model.facts["start_from"]
    manifest = artifacts.read_manifest(*name.split("/")) if name else None
    return Parent(manifest, named=True) if manifest and not damaged_files(manifest) else None
