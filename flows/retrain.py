"""The nightly run: events -> sessions -> candidate -> metrics -> comparison -> promotion -> report.

overnight retrain --dataset demo --source demo-shop
"""

from typing import Any

from prefect import State, flow
from prefect.states import Completed

from flows import stages
from flows.parameters import Data, resolve
from flows.reports import summarise
from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig


@flow(log_prints=True)
@stages.explain_mistakes
def retrain(
    data: Data = Data(),  # noqa: B008  (frozen)
    model: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    evaluation: EvaluationConfig | None = None,
    promotion: PromotionConfig | None = None,
) -> State[dict[str, Any]]:
    """Turn events into sessions, train a model, and promote it if it beats the one in service.

    Args:
        data: Which events, up to which day, and where results go.
        model: The architecture. Empty: what suits the dataset.
        training: How the model is fit. Empty: what suits the dataset.
        evaluation: What is measured, and against which baselines. Empty: what suits the dataset.
        promotion: When the new model takes over. Empty: when its NDCG@20 is higher.
    """
    settings = resolve(data, model, training, evaluation, promotion)
    sessions = stages.prepare(settings)
    candidate = stages.train(settings, sessions)
    measured = stages.evaluate(settings, candidate, sessions)
    comparison = stages.compare(settings, measured, sessions)
    in_service = stages.promote(settings, comparison)
    page = stages.report(settings, sessions, candidate, measured, comparison)
    summary = summarise(settings.dataset.name, sessions, candidate, measured, comparison, in_service, page)
    return Completed(message=summary["verdict"], data=summary)
