"""What can be set, one frozen model per concern: a model, its training, its evaluation and its promotion."""

from modeling.config.evaluation import (
    LABEL_METRICS,
    LOWER_IS_BETTER,
    METRICS,
    EvaluationConfig,
    Goal,
    PromotionConfig,
)
from modeling.config.guards import GuardsConfig
from modeling.config.model import (
    NEXT_ITEM,
    BodyConfig,
    Choice,
    Concern,
    HeadConfig,
    InputsConfig,
    LossConfig,
    ModelConfig,
    NegativesConfig,
    ObjectiveConfig,
    PretrainedConfig,
)
from modeling.config.splits import SplitConfig
from modeling.config.training import TrainingConfig

__all__ = [
    "LABEL_METRICS",
    "LOWER_IS_BETTER",
    "METRICS",
    "EvaluationConfig",
    "Goal",
    "GuardsConfig",
    "PromotionConfig",
    "SplitConfig",
    "NEXT_ITEM",
    "BodyConfig",
    "Choice",
    "Concern",
    "HeadConfig",
    "InputsConfig",
    "LossConfig",
    "ModelConfig",
    "NegativesConfig",
    "ObjectiveConfig",
    "PretrainedConfig",
    "TrainingConfig",
]
