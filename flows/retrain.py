"""The nightly run: events -> sessions -> candidate -> metrics -> comparison -> promotion -> report.

overnight retrain --dataset demo --source demo-shop
"""

from dataclasses import replace
from typing import Any

from prefect import State, flow, runtime
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows import stages
from flows.child import Child
from flows.lateness import due_of_run
from flows.night import Stages, run_stages
from flows.night_lock import alone
from flows.notify import notify_of_end, notify_of_night
from flows.reports.prefect_ui import show_metrics, show_report, show_sessions, show_training
from flows.reports.progress import PREPARE, TRAIN
from flows.reports.run_names import name_run
from flows.settings.form import (
    DataForm,
    EvaluationForm,
    Lines,
    ModelForm,
    PromotionForm,
    TrainingForm,
    chosen,
    layer_of,
)
from flows.settings.limits import Limits
from flows.settings.settings import Data, resolve
from flows.tasks import as_task, explain_mistakes
from flows.tracking.link import show_link
from schemas.errors import parse

AGAIN = (10.0, 60.0)  # seconds before reading sources, and publishing, are tried a second and a third time


def tasks_of(limits: Limits, child: Child) -> Stages:
    """The stages as tasks, each stopped when its time is over; what trains and measures is done in the child."""
    return Stages(
        prepare=as_task(stages.prepare, PREPARE, show=show_sessions, hours=limits.prepare_hours, try_again_after=AGAIN),
        train=as_task(child.does(stages.train), TRAIN, show=show_training, hours=limits.train_hours),
        evaluate=as_task(child.does(stages.evaluate), show=show_metrics, hours=limits.evaluate_hours),
        compare=as_task(child.does(stages.compare), hours=limits.compare_hours),
        promote=as_task(child.promotes(), TRAIN, hours=limits.promote_hours, try_again_after=AGAIN),
        report=as_task(stages.report, show=show_report, hours=limits.report_hours, try_again_after=AGAIN),
        lists=as_task(
            child.does(stages.lists), ("recommend", "publish"), hours=limits.lists_hours, try_again_after=AGAIN
        ),
        vectors=as_task(child.does(stages.vectors), hours=limits.lists_hours, try_again_after=AGAIN),
        shown=as_task(stages.shown, hours=limits.report_hours),
        record=as_task(stages.record, hours=limits.report_hours),
    )


@flow(  # `resolve` validates parameters: what is unfit alone may be fit on top of a preset
    log_prints=True, validate_parameters=False, on_failure=[notify_of_end], on_crashed=[notify_of_end]
)
@explain_mistakes
def retrain(
    data: DataForm = {},  # noqa: B006  (never changed)
    model: ModelForm = {},  # noqa: B006
    training: TrainingForm = {},  # noqa: B006
    evaluation: EvaluationForm = {},  # noqa: B006
    promotion: PromotionForm = {},  # noqa: B006
    changes: Lines = [],  # noqa: B006
) -> State[dict[str, Any]]:
    """Turn events into sessions, train a model, and promote it if it beats the one in service.

    Args:
        data: Which events, up to which day, and where results go.
        model: What is trained. What is set goes over the preset, the preset over what suits the dataset.
        training: How the model is fit. What is left empty is the preset's, or suits the dataset.
        evaluation: What is measured.
        promotion: When the new model takes over. Empty: unless it is shown to be worse.
        changes: Any other setting, a line each.
    """
    groups = {"training": training, "evaluation": evaluation, "promotion": promotion}
    preset, given, of_dataset = layer_of(model, groups, changes)
    read = parse(Data, chosen(data), "data")
    resolved = resolve(read.model_copy(update={"changes": read.changes | of_dataset}), preset, given)
    settings = replace(resolved, due=due_of_run())
    name_run(f"{settings.dataset.name} {settings.data.until or 'newest day'}")
    with alone(settings, "night", get_run_logger().info, str(runtime.flow_run.id or "")), Child() as child:
        summary = run_stages(settings, tasks_of(settings.limits, child))
    show_link(summary["mlflow"])
    notify_of_night(summary, get_run_logger().warning)
    return Completed(message=" ".join([*summary["late"], summary["verdict"]]), data=summary)
