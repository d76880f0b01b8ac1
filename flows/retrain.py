"""The nightly run: events -> sessions -> candidate -> metrics -> comparison -> promotion -> report.

overnight retrain --dataset demo --source demo-shop
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

from prefect import State, flow, runtime
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows import stages
from flows.lateness import due_of_run
from flows.night import Stages, run_stages
from flows.night_lock import alone
from flows.notify import notify_of_end, notify_of_night
from flows.reports import prefect_ui
from flows.reports.progress import PREPARE, TRAIN
from flows.reports.run_names import name_run
from flows.settings.form import PresetName, Section
from flows.settings.layers import Layer
from flows.settings.settings import Data, resolve
from flows.tasks import as_task, explain_mistakes
from modeling.config import (
    BodyConfig,
    EvaluationConfig,
    HeadConfig,
    InputsConfig,
    LossConfig,
    ObjectiveConfig,
    PromotionConfig,
    TrainingConfig,
)
from schemas.errors import parse

AGAIN = (10.0, 60.0)  # seconds before reading sources, and publishing, are tried a second and a third time
TASKS = Stages(
    prepare=as_task(stages.prepare, PREPARE, show=prefect_ui.show_sessions, try_again_after=AGAIN),
    train=as_task(stages.train, TRAIN, show=prefect_ui.show_training, hours=24),
    evaluate=as_task(stages.evaluate, show=prefect_ui.show_metrics),
    compare=as_task(stages.compare),
    promote=as_task(stages.promote, hours=1, try_again_after=AGAIN),
    report=as_task(stages.report, show=prefect_ui.show_report, hours=1, try_again_after=AGAIN),
)


@flow(  # `resolve` validates parameters: what is unfit alone may be fit on top of a preset
    log_prints=True, validate_parameters=False, on_failure=[notify_of_end], on_crashed=[notify_of_end]
)
@explain_mistakes
def retrain(
    data: Data = Data(),  # noqa: B008  (frozen)
    preset: PresetName | None = None,
    inputs: Annotated[InputsConfig, Section()] | None = None,
    body: Annotated[BodyConfig, Section()] | None = None,
    objective: Annotated[ObjectiveConfig, Section("objectives")] | None = None,
    loss: Annotated[LossConfig, Section("losses")] | None = None,
    heads: dict[str, HeadConfig | Literal[False]] | None = None,
    training: Annotated[TrainingConfig, Section()] | None = None,
    evaluation: Annotated[EvaluationConfig, Section()] | None = None,
    promotion: Annotated[PromotionConfig, Section()] | None = None,
) -> State[dict[str, Any]]:
    """Turn events into sessions, train a model, and promote it if it beats the one in service.

    Args:
        data: Which events, up to which day, and where results go.
        preset: A published model to begin with. What is set below goes over it; it goes over what suits the dataset.
        inputs: What of an event the model reads. What is left empty, here and below, is the preset's, or suits the dataset.
        body: The sequence encoder and its size.
        objective: What is predicted from what.
        loss: What is minimised for the next item, and against which negatives.
        heads: What is predicted, by label; next_item is the next item. `{"name": "binary"}` adds one, false removes one.
        training: How the model is fit.
        evaluation: What is measured, and against which baselines.
        promotion: When the new model takes over. Empty: when its NDCG@20 is higher.
    """
    given: Layer = {"inputs": inputs, "body": body, "objective": objective, "loss": loss, "heads": heads}
    given |= {"training": training, "evaluation": evaluation, "promotion": promotion}
    settings = replace(resolve(parse(Data, data, "data"), preset, given), due=due_of_run())
    name_run(f"{settings.dataset.name} {settings.data.until or 'newest day'}")
    with alone(settings, "night", get_run_logger().info, str(runtime.flow_run.id or "")):
        summary = run_stages(settings, TASKS)
    notify_of_night(summary, get_run_logger().warning)
    return Completed(message=" ".join([*summary["late"], summary["verdict"]]), data=summary)
