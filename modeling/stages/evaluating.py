"""Model folder + sessions -> metrics of the model and of baselines.

The last item of every test session is hidden and ranked among the whole catalogue by the code that recommends; labels are
predicted for what is hidden by the code that predicts in service.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from modeling.config import EvaluationConfig
from modeling.stages.identity import code_of_evaluation, content_of, parts_of, selection_of
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, identify, require_whole

if TYPE_CHECKING:
    from modeling.service.rules import Rules

EVALUATIONS = "evaluations"
RESULT, EXAMPLES, RANKS = "result.json", "examples.json", "ranks.parquet"
Progress = Callable[[str], object]


def evaluate(
    artifacts: Artifacts,
    model: Manifest,
    sessions: Manifest,
    config: EvaluationConfig,
    progress: Progress = print,
    rules: Rules | None = None,
) -> Manifest:
    """Measure a model on the test cases of prepared sessions, or return the measurement made before.

    Cases whose target no model trained on these sessions can recommend are left out and counted: those that came up after
    the vocabulary (`unknown_targets`) or have no training event (`cold_targets`). So are sessions of one event (`too_short`).
    A model with another vocabulary (one trained on another night) is measured on the same cases; targets that it cannot
    recommend count as misses. With `filter_seen` so do targets that the history holds (`seen_targets`). Labels are measured
    on every case that has one, and so is `mean`, the mean of the training labels.

    With `config.rules` ranks, lists and examples are made under `rules`, by the code that serves; `rules.hide_seen`, if given,
    goes over `config.filter_seen`. The fact `rules` names them (`written`, `digest`; they are kept in `rules.json` and
    `rules.parquet`), and says the `catalogue` that they leave, `forbidden_targets`, which count as misses, what a `rank` is
    (see `stages.under_rules`) and `without`, the metrics of the model without rules, whose ranks are in `ranks.parquet`, too.

    The cases are those of the newest fold of `config.split`, which `split` describes: its rule, the first and the last day of
    training and test, and what `Fold.counts` counts. The facts hold `metrics` by name of model or baseline (the mean over
    cases of `metrics.gains_of`; None: undefined, such as everything of no cases, or the AUC of labels that are all alike),
    `baseline_settings` (by name, what a baseline chose on validation cases), `baseline_seconds` (of CPU, to fit it), these
    counts, `catalogue` items that can be recommended of the `vocabulary`, by label `labels`, and `learned_from_test_day`:
    whether the model learned from what it is tested on, which is also warned of. `ranks`, `lists`, `intervals` and `slices` are
    described where they are made, in `stages.ranked`. The ranks themselves are in `ranks.parquet`, as `evaluation.rank_table`
    says.

    Raises:
        InputError: when the model has to be measured and is not what was written.
    """
    assert config.rules == (rules is not None), "evaluation.rules says whether there are rules"
    of_rules = {"rules": rules.about()} if rules else {}
    artifact_id = identify(
        code=code_of_evaluation(model, config.baselines),
        parents=(model.name, sessions.name),
        evaluation=config.model_dump(exclude={"split"}),
        split=selection_of(sessions, config.split),
        list=content_of(config.split),
        **of_rules,
        made_with=plugins.contents({**parts_of(model), "baselines": config.baselines}),
    )
    if existing := artifacts.find(EVALUATIONS, artifact_id):
        progress(f"Evaluation {existing.name} is there already: nothing to measure.")
        _warn(existing, progress)
        return existing
    from modeling.stages.measure import measure  # torch is only loaded when there is something to measure
    from modeling.stages.memory import kept_memory
    from modeling.stages.under_rules import keep_rules

    require_whole(model)  # what is measured of damaged weights would stand for the model when it is made again
    with kept_memory():
        facts, examples, table = measure(model, sessions, config, progress, rules)
    parameters = {"evaluation": config.model_dump(mode="json")} | of_rules
    with artifacts.write(EVALUATIONS, artifact_id, parents=(model.name, sessions.name), parameters=parameters) as draft:
        draft.facts = facts
        (draft.folder / RESULT).write_text(json.dumps(facts, indent=2) + "\n")
        (draft.folder / EXAMPLES).write_text(json.dumps(examples, indent=2, default=str) + "\n")
        if table:
            table.write(draft.folder / RANKS)
        if rules:
            keep_rules(rules, draft.folder)
    _warn(draft.manifest, progress)
    return draft.manifest


def _warn(evaluation: Manifest, progress: Progress) -> None:
    if evaluation.facts["learned_from_test_day"]:
        progress(f"Warning: {evaluation.parents[0]} learned from what it is tested on here: its metrics are too good.")
