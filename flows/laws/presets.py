"""What every preset obeys: it is a model of parts that are there and go together, at the sizes it names."""

from __future__ import annotations

from flows.laws import Law, models
from flows.laws.models import Trial
from modeling.config import ModelConfig
from modeling.presets import read_preset


def trial_of(name: str) -> Trial:
    """The model that a preset makes of the trial's few items.

    Raises:
        InputError: for a file that is no preset.
    """
    layer = read_preset(name).layer
    return Trial({group: value for group, value in layer.items() if group in ModelConfig.model_fields})


def its_parts_are_there_and_go_together(trial: Trial) -> None:
    """All parts that it names are there, take the options it gives, and go together."""
    trial.model()


LAWS: tuple[Law, ...] = (
    its_parts_are_there_and_go_together,
    models.its_loss_and_gradients_are_finite,
    models.what_comes_next_is_not_seen,
    models.saved_and_loaded_models_are_the_same,
)
