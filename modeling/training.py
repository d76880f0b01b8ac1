"""The training stage: session Parquet + feature schema -> model folder. Interrupted anywhere, it goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from modeling.config import ModelConfig, TrainingConfig
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, code_version, identify, sha256
from schemas.errors import InputError
from schemas.features import FeatureSchema

KIND = "models"
Progress = Callable[[str], object]


def train(
    artifacts: Artifacts,
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    progress: Progress = print,
) -> Manifest:
    """Fit a model on prepared sessions, or return the one that was fit on them with these settings before.

    Of a file of pretrained vectors it is the content that counts, not the name.

    The folder holds config.json, model.safetensors, schema.json, items.parquet and history.json. Facts: parameters, steps,
    tokens, CPU and wall seconds, tokens per CPU second, the best validation score and the curves.
    """
    pretrained = model_config.inputs.pretrained
    artifact_id = identify(
        code=code_version(Path(__file__).parent, Path(plugins.__file__).parent),
        parents=(sessions.name,),
        model=model_config.model_dump(exclude={"inputs": {"pretrained": {"path"}}}),
        training=config.model_dump(),
        pretrained=_content(Path(pretrained.path)) if pretrained else None,
        made_with=plugins.contents(_parts(model_config)),
    )
    if found := artifacts.find(KIND, artifact_id):
        progress(f"Model {found.name} is there already: nothing to train.")
        return found
    import polars as pl

    from modeling.data import split_sessions  # torch is only loaded when there is something to train
    from modeling.fitting import fit
    from modeling.recommend import ITEMS

    schema = FeatureSchema.read(sessions.folder / "schema.json")
    split = split_sessions(sessions, schema, config.validation_sessions)
    items = pl.read_parquet(sessions.folder / ITEMS, glob=False)
    parameters = {"model": model_config.model_dump(), "training": config.model_dump()}
    with (
        artifacts.unfinished(artifact_id) as checkpoints,
        artifacts.write(KIND, artifact_id, parents=(sessions.name,), parameters=parameters) as draft,
    ):
        model, facts = fit(schema, split, model_config, config, checkpoints, progress, items)
        model.save(draft.folder)
        for name in ("schema.json", ITEMS):
            shutil.copy(sessions.folder / name, draft.folder / name)
        shutil.copytree(sessions.folder / "vocabularies", draft.folder / "vocabularies")
        (draft.folder / "history.json").write_text(json.dumps(facts.pop("history")) + "\n")
        draft.facts = facts | {"test_day": sessions.facts["test_day"]}  # it learned from the days before
    return draft.manifest


def _parts(config: ModelConfig) -> dict[str, list[str]]:
    """The names a model is put together from, by kind: of people's own files it is the content that counts, too."""
    heads = [head.name for head in config.heads.values()]
    one_each = {"bodies": config.body, "objectives": config.objective, "losses": config.loss}
    return {kind: [choice.name] for kind, choice in one_each.items()} | {"heads": heads}


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"inputs.pretrained.path: {path} cannot be read ({error.strerror}).") from None
