"""What `overnight tune` tries: settings, and for each of them steps away from where a search begins.

A search begins at a preset, or at the settings as they are given (`default`), in full: also with what follows the shape of the
data. Every setting has one step that leaves it as it is there, so the beginning itself is a point of the space, and one space
does for all presets, however far apart their sizes are:

    training.learning_rate     a quarter to four times, on a log scale
    training.tokens_per_step   half, the same, twice or four times as many events
    body.dropout               up to .2 less or .3 more, within 0 and .7; attention's goes along where both are the same
    body.num_layers            one less, the same, one or two more
    body.dim                   half, the same, or twice the width, a multiple of the heads
    loss                       the same, full_softmax, sampled_softmax or gbce
    loss.label_smoothing       the same, 0, .1 or .2, of a loss that has it
    loss.negatives.count       a quarter, the same, or four times as many, of a loss that draws them

and of one body alone:

    gru4rec  body.cell         the same, gru or lstm
    ligr     body.ff_multiple  the same, 2 or 4
    hstu     body.time_buckets the same, 16 or 64
    mamba2   body.state_size   the same, 16 or 64

Another body needs no entry; one with options that are worth a search gets a line in `OF_BODIES`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flows.settings.layers import Layer, over, plain
from modeling import bodies, losses
from modeling.config import ModelConfig, TrainingConfig
from modeling.presets.by_shape import Shape, settings_by_shape
from schemas import plugins
from schemas.options import options_of

Value = float | int | str
Steps = dict[str, Value]  # by key of a setting
SAME = "same"
MOST_DROPOUT = 0.7
FACTORS = (0.25, 4.0)  # of the learning rate, the lowest and the highest
NEAR = (0.5, 0.7, 1.4, 2.0)  # steps from a learning rate to one near it


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted key, its steps, and what a step does to the value where the search begins."""

    key: str
    how: Literal["times", "plus", "instead"]
    steps: tuple[Value, ...] = ()  # empty: any factor between `FACTORS`

    @property
    def neutral(self) -> Value:
        """The step that leaves it as it is."""
        neutral: dict[str, Value] = {"times": 1.0, "plus": 0, "instead": SAME}
        return neutral[self.how]

    def apply(self, value: Any, step: Value) -> Any:
        """The value after a step."""
        if self.how == "instead" or isinstance(step, str):
            return value if step == SAME else step
        return value * step if self.how == "times" else value + step


LEARNING_RATE = Setting("training.learning_rate", "times")
LOSS = Setting("loss", "instead", (SAME, "full_softmax", "sampled_softmax", "gbce"))
SMOOTHING = Setting("loss.label_smoothing", "instead", (SAME, 0.0, 0.1, 0.2))
NEGATIVES = Setting("loss.negatives.count", "times", (0.25, 1.0, 4.0))
OF_ALL = (
    LEARNING_RATE,
    Setting("training.tokens_per_step", "times", (0.5, 1.0, 2.0, 4.0)),
    Setting("body.dropout", "plus", (-0.2, -0.1, 0, 0.1, 0.2, 0.3)),
    Setting("body.num_layers", "plus", (-1, 0, 1, 2)),
    Setting("body.dim", "times", (0.5, 1.0, 2.0)),
    LOSS,
)
OF_BODIES = {
    "gru4rec": (Setting("body.cell", "instead", (SAME, "gru", "lstm")),),
    "ligr": (Setting("body.ff_multiple", "instead", (SAME, 2, 4)),),
    "hstu": (Setting("body.time_buckets", "instead", (SAME, 16, 64)),),
    "mamba2": (Setting("body.state_size", "instead", (SAME, 16, 64)),),
}


@dataclass(frozen=True)
class Beginning:
    """Where a search begins: a model and its training, in full, and `fixed`, the keys that a person gave and that stay."""

    model: ModelConfig
    training: TrainingConfig
    settled: dict[str, Any]  # what followed the shape of the data, by dotted key
    fixed: frozenset[str]

    @classmethod
    def of(cls, model: ModelConfig, training: TrainingConfig, shape: Shape, given: Layer) -> Beginning:
        """Of resolved settings, for data of a shape; `given` is what a person gave."""
        model, training, settled = settings_by_shape(model, training, shape)
        return cls(model, training, settled, frozenset(_keys(plain(given))))

    @property
    def size(self) -> int:
        """About how large its body is, for the order in which beginnings are tried."""
        return self.model.body.num_layers * self.model.body.dim

    def settings(self, loss: str | None = None) -> list[Setting]:
        """What is tried here, of a loss that is named or this one."""
        name = self.model.loss.name if loss in (None, SAME) else str(loss)
        function = plugins.find(losses, name)
        of_loss = [SMOOTHING] if "label_smoothing" in options_of(function).model_fields else []
        of_loss += [NEGATIVES] if losses.is_sampled(function) else []
        tried = [*OF_ALL, *OF_BODIES.get(self.model.body.name, ()), *of_loss]
        return [setting for setting in tried if not self._is_fixed(setting.key)]

    def _is_fixed(self, key: str) -> bool:
        return any(key == given or given.startswith(f"{key}.") for given in self.fixed)

    def neutral(self) -> Steps:
        """The steps that lead nowhere."""
        return {setting.key: setting.neutral for setting in self.settings()}

    def changes(self, steps: Steps) -> dict[str, Any]:
        """The new values of settings that some steps change, by dotted key."""
        changes: dict[str, Any] = {}
        for setting in self.settings(str(steps.get(LOSS.key, SAME))):
            step = steps.get(setting.key, setting.neutral)
            before = self._value(setting.key, new_loss=changes.get(LOSS.key))
            after = self._fit(setting.key, setting.apply(before, step)) if step != setting.neutral else before
            if after != before:
                changes[setting.key] = after
        attention = self.model.body.attention_dropout
        if "body.dropout" in changes and attention and attention == self.model.body.dropout:
            changes["body.attention_dropout"] = changes["body.dropout"]
        return changes

    def layer(self, changes: dict[str, Any]) -> Layer:
        """Settings to train with these changes: nothing for none, else also what followed the shape of the data.

        Without that, a changed setting would change what follows from it.
        """
        if not changes:
            return {}
        kept = {key: value for key, value in self.settled.items() if key not in changes}
        if LOSS.key in changes:
            kept = {key: value for key, value in kept.items() if not key.startswith(f"{LOSS.key}.")}
        layer: Layer = {}
        for key, value in sorted({**kept, **changes}.items()):  # a loss comes before its options
            layer = over(nested(key, value), layer)
        return layer

    def _value(self, key: str, new_loss: str | None) -> Any:
        """What a setting is where the search begins, or with another loss what that takes by itself."""
        group, _, name = key.partition(".")
        if group == "training":
            return getattr(self.training, name)
        if key == NEGATIVES.key:
            return self.model.loss.negatives.count
        choice, package = (self.model.body, bodies) if group == "body" else (self.model.loss, losses)
        if not name or name in type(choice).model_fields:
            return getattr(choice, name or "name")
        if name in choice.options and not (new_loss and group == LOSS.key):
            return choice.options[name]
        part = plugins.find(package, new_loss if new_loss and group == LOSS.key else choice.name)
        return options_of(part).model_fields[name].default

    def _fit(self, key: str, value: Any) -> Any:
        """A value as it may be: counts whole, widths a multiple of the heads, shares within bounds, rates in three digits."""
        if key == "body.dim":
            heads = self.model.body.num_heads
            return max(heads, 4, round(value / heads) * heads)
        if key == "body.dropout":
            return round(min(max(value, 0.0), MOST_DROPOUT), 3)
        if key == LEARNING_RATE.key:
            return float(f"{value:.3g}")
        least = {"body.num_layers": 1, "training.tokens_per_step": 16, NEGATIVES.key: 1}
        return max(least[key], round(value)) if key in least else value


def suggest(
    settings: Callable[[str | None], list[Setting]],
    choose: Callable[[str, tuple[Value, ...]], Value],
    factor: Callable[[str, float, float], float],
) -> Steps:
    """Steps of all settings, each from `choose(key, steps)`, or `factor(key, low, high)` on a log scale; the loss first."""
    steps: Steps = {}
    if LOSS in settings(None):
        steps[LOSS.key] = choose(LOSS.key, LOSS.steps)
    for setting in settings(str(steps.get(LOSS.key, SAME))):
        if setting is not LOSS:
            steps[setting.key] = choose(setting.key, setting.steps) if setting.steps else factor(setting.key, *FACTORS)
    return steps


def near(settings: list[Setting], steps: Steps, rng: random.Random) -> Steps:
    """Other steps, of which one or two differ from these."""
    moved = dict(steps)
    for setting in rng.sample(settings, min(rng.choice((1, 2)), len(settings))):
        now = moved.get(setting.key, setting.neutral)
        if not setting.steps:
            low, high = FACTORS
            moved[setting.key] = min(max(float(now) * rng.choice(NEAR), low), high)
        else:
            moved[setting.key] = rng.choice([step for step in setting.steps if step != now])
    return moved


def nested(key: str, value: Any) -> Layer:
    """`loss.negatives.count`, 64 -> {"loss": {"negatives": {"count": 64}}}; `loss`, "gbce" -> {"loss": {"name": "gbce"}}."""
    names = key.split(".") if "." in key else [key, "name"]
    for name in reversed(names):
        value = {name: value}
    layer: Layer = value
    return layer


def _keys(layer: Layer, prefix: str = "") -> list[str]:
    """All dotted keys of a layer; `loss.name` is `loss`."""
    keys: list[str] = []
    for name, value in layer.items():
        key = prefix if prefix in ("body", "loss", "objective") and name == "name" else f"{prefix}.{name}".strip(".")
        keys += _keys(value, key) if isinstance(value, dict) and value else [key]
    return keys
