"""The evaluation stage: a model folder and prepared sessions -> metrics of the model and of the baselines beside it.

The last item of every test session is hidden and ranked among the whole catalogue by the code that recommends; labels are
foretold for what is hidden by the code that predicts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from modeling.config import EvaluationConfig
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, code_version, identify

KIND = "evaluations"
RESULT, EXAMPLES = "result.json", "examples.json"
Progress = Callable[[str], object]


def evaluate(
    artifacts: Artifacts,
    model: Manifest,
    sessions: Manifest,
    config: EvaluationConfig,
    progress: Progress = print,
) -> Manifest:
    """Measure a model on the test cases of prepared sessions, or return the measurement made before.

    Cases whose target is not in the sessions' training vocabulary cannot be hit by anybody: they are left out and counted.
    A model with another vocabulary (one trained on another night) is measured on the same cases; targets that it does not
    know count as misses. Labels are measured on every case that has one, beside `mean`, the mean of the training labels. The
    facts hold `metrics` by name of model or baseline (None: undefined, such as the AUC of labels that are all alike), `cases`,
    `unknown_targets` and, by label, `labels`.
    """
    artifact_id = identify(
        code=code_version(Path(__file__).parent, Path(plugins.__file__).parent),
        parents=(model.name, sessions.name),
        evaluation=config.model_dump(),
        made_with=plugins.contents({"baselines": config.baselines}),
    )
    if found := artifacts.find(KIND, artifact_id):
        progress(f"Evaluation {found.name} is there already: nothing to measure.")
        return found
    from modeling.measuring import measure  # torch is only loaded when there is something to measure

    facts, examples = measure(model, sessions, config, progress)
    parameters = {"evaluation": config.model_dump()}
    with artifacts.write(KIND, artifact_id, parents=(model.name, sessions.name), parameters=parameters) as draft:
        draft.facts = facts
        (draft.folder / RESULT).write_text(json.dumps(facts, indent=2) + "\n")
        (draft.folder / EXAMPLES).write_text(json.dumps(examples, indent=2, default=str) + "\n")
    return draft.manifest
