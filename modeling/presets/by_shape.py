"""Settings that follow the shape of the data, where nobody has given them: a setting that is written anywhere always wins.

    tokens_per_step    0.26 events^(2/3), to the nearest power of two: 64 below 5,000 events, 512 at 100,000, 4,096 at 2,000,000
    loss               full_softmax below 50,000 items, then sampled_softmax with 2,048 negatives for 256 predictions

    of                 sessions                                 histories (split `leave_one_out`)
    learning_rate      0.003 to 1,024 events a step, else 0.002 0.003 to 512, else 0.002; 0.001 if constant
    warmup_steps       0.1 with a rate above 0.001              the same
    order              time (the setting's own default)         random where the last is left out, so that validation chooses
    item_start         random (the setting's own default)       neighbours below 75 events an item, 5,000,000 in all (sasrec)
    schedule           constant (the setting's own default)     linear, all of it
    epochs             10 (the setting's own default)           12, or 30 where the rate is constant; validation takes the best
    piece_events       none (the setting's own default)         200 from 75 events an item on
    attention_dropout  0                                        that of the body (`body.dropout`)
    num_heads          2 (the setting's own default)            1, of the body sasrec
    positions          end (the setting's own default)          none from 20 events a history on, below 30 an item (sasrec)
    dim                64 (the setting's own default)           128 below 30 events an item, and from 75 on (sasrec)
    dropout            0.2 (the setting's own default)          0.5 below 30 events an item (sasrec), label_smoothing 0.1

    of sessions with few events of an item: below 24, of fewer than 5,000,000 in all, where they do not move (sasrec)
    item_start         neighbours
    schedule           linear, with neighbours
    dim                128
    dropout            0.5 from 20 events a session on or where only item ids and times are read, label_smoothing 0.1;
                       else 0.1 from 4 events a session on

    of sessions that move: item_id drifts by a population stability index of 0.5 or more on the newest day
    recent_days        2: what is older is read by nobody any more
    epochs             1, in order of time
    tokens_per_step    of one pass: a sixteenth of what is said above for the events of these days, 16 at least
    bias               true, with bias_half_life chosen, of the head next_item

So steps of an epoch grow with the cube root of the events: few enough for a large shop, and enough for a small one to learn in.
Histories are read for weeks on end and overfit by attention; sessions of some events gain nothing by dropping its weights.
Measured by time to accuracy (LOG.md, "Settings by the size of the data", "Attention dropout", "Histories", "Sessions
that move", "Dense histories", "Sessions with few events of an item", "Defaults on shapes that no rule was measured on",
"Defaults against all presets" and "Catalogues of 50,000 items and more").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from modeling.config import NEXT_ITEM, ModelConfig, NegativesConfig, TrainingConfig
from schemas.artifacts import Manifest
from schemas.columns import ITEM_ID, TIMESTAMP
from schemas.features import FeatureSchema

LEAST_TOKENS, MOST_TOKENS = 64, 65_536  # a step
TOKENS_PER_EVENTS = 0.26  # of events^(2/3): near what was set by hand for four datasets of 100,000 to 3,000,000 events
FEW_TOKENS, RATE_OF_FEW, RATE = 512, 3e-3, 1e-3  # with few events a run has few steps, which must go further
MORE_TOKENS, RATE_OF_MANY = 1024, 2e-3  # of sessions, which are read for few epochs: the higher rate is good for longer
FALLING_RATE = 2e-3  # of histories: twice as high where it falls to zero
WARMUP = 0.1  # without it, a high rate leads the first steps onto a plateau
SAMPLED_FROM = 50_000  # items: all scores of 1,024 events cost .3 CPU seconds there, sampled ones a twentieth
NEGATIVES = {"count": 2048, "group": 256}  # of Beauty, NDCG is a tenth above that of 256 for 32, for 1.7 times the time
MOST_FACTORISED = 5_000_000  # events: what items occur with is found in 40 CPU seconds and 2.4 GB there
SPARSE = 30  # events an item, below which a model of histories learns them by heart
SPARSE_OF_SESSIONS = 24  # and one of sessions hardly begins: at 20 it gains much, at 28 nothing for twice the time
WIDE = 128  # of dense histories 8 epochs are worth 20 of half the width, at twice the time of a step
SPARSE_DROPOUT, SPARSE_SMOOTHING = 0.5, 0.1  # of histories half of twice the width is left
SLOW_DROPOUT = 0.1  # where .2 is too much for the few steps of a small shop
SHORT = 4  # events a session: with features, 2.8 lose by a dropout below .2, and 5.7 gain much
FEW = 75  # events an item of histories: at 31 a start near neighbours gains much, at 193 a random one ends higher
LONG = 20  # events a history, from which a place so many from the end says little and its vector is learned by heart
MOVES = 0.5  # population stability index: twice what is called a drift; news have 2, shops below 0.1
ENOUGH = 100  # sessions of the newest day, of fewer chance alone may make such an index
RECENT_DAYS = 2
FINER, LEAST_MOVING = 16, 16  # the last hour, which says most of the next day, must be some steps and not a part of one
EPOCHS_OF_HISTORIES = 30  # at a constant rate the best of a run comes late; validation ends a run that has had it
FALLING_EPOCHS = 12  # a rate that falls gains most at its end, which a constant one never comes to
PIECE_EVENTS = 200  # of dense histories: what came before is as good an example, and attention to more of it costs more


@dataclass(frozen=True)
class Shape:
    """What the rules look at: events, items of the vocabulary, sessions, and whether a session is a whole history."""

    num_events: int
    num_items: int
    num_sessions: int
    histories: bool
    drift: float = 0.0  # population stability index of items, the newest day against those before
    recent_share: float = 1.0  # of the training sessions, those of the newest `RECENT_DAYS` days
    features: tuple[str, ...] = ()  # side features that are not made of the time of an event

    @classmethod
    def of(cls, sessions: Manifest) -> Shape:
        """The shape of prepared sessions."""
        histories = (
            sessions.parameters.get("dataset", {}).get("split") == "leave_one_out"
        )  # the only split that histories have
        facts = sessions.facts
        days = sorted(day for day in facts.get("days", {}) if day != facts.get("test_day"))
        of_day = [facts["days"][day] for day in days]
        share = sum(of_day[-RECENT_DAYS:]) / max(sum(of_day), 1) if of_day else 1.0
        enough = (facts.get("test_sessions") or 0) >= ENOUGH
        drift = (facts.get("drift") or {}).get(ITEM_ID, 0.0) if enough else 0.0
        side = FeatureSchema.read(sessions.folder / "schema.json").side_features
        features = tuple(column.name for column in side if column.source != TIMESTAMP)
        return cls(facts["events"], facts["items"], facts["sessions"], histories, drift, share, features)

    def read_by(self, model: ModelConfig) -> Shape:
        """The shape of what a model of these settings reads: without the features that `inputs.features` leaves out."""
        named = model.inputs.features
        return self if named is None else replace(self, features=tuple(name for name in self.features if name in named))

    @property
    def moves(self) -> bool:
        """Whether what people take changes so fast that sessions of some days ago say little of tomorrow's."""
        return not self.histories and self.drift >= MOVES

    @property
    def sparse(self) -> bool:
        """Whether these are histories with few events of each item."""
        return self.histories and self.num_events < SPARSE * self.num_items

    @property
    def dense(self) -> bool:
        """Whether these are histories with many events of each item."""
        return self.histories and self.num_events >= FEW * self.num_items

    @property
    def near(self) -> bool:
        """Whether items are so little known that a start near their neighbours is better than a random one."""
        most = FEW if self.histories else SPARSE_OF_SESSIONS
        return self.num_events < min(most * self.num_items, MOST_FACTORISED) and not self.moves

    @property
    def held_back(self) -> bool:
        """Whether half is dropped, lest items be learned by heart: of sessions if they are long, or say nothing but items."""
        long = self.num_events >= LONG * self.num_sessions
        return self.sparse or (not self.histories and self.near and (long or not self.features))

    @property
    def slow(self) -> bool:
        """Whether these are sparse sessions of some events with further features, hardly learned in the few steps of a run."""
        sparse = not self.histories and self.near and not self.held_back
        return sparse and self.num_events >= SHORT * self.num_sessions

    @property
    def long(self) -> bool:
        """Whether these are sparse histories of many events each."""
        return self.sparse and self.num_events >= LONG * self.num_sessions


def settings_by_shape(
    model: ModelConfig, training: TrainingConfig, shape: Shape
) -> tuple[ModelConfig, TrainingConfig, dict[str, Any]]:
    """Settings and the shape of the data -> the settings to train with, and what was chosen by name.

    `settings_by_shape(ModelConfig(), TrainingConfig(), Shape(117_958, 1_670, 20_738, histories=False))` chooses
    `{"training.tokens_per_step": 512, "training.learning_rate": 0.003, "training.warmup_steps": 0.1, "loss": "full_softmax",
    "body.attention_dropout": 0.0}`.
    """
    shape = shape.read_by(model)
    of_inputs, of_loss, of_body = _of_inputs(model, shape), _of_loss(model, shape), _of_body(model, shape)
    near = of_inputs.get("item_start", model.inputs.item_start) == "neighbours"
    of_training = _of_training(training, shape, near)
    chosen = {f"training.{name}": value for name, value in of_training.items()}
    chosen |= {"loss" if name == "name" else f"loss.{name}": value for name, value in of_loss.items()}
    chosen |= {f"body.{name}": value for name, value in of_body.items()}
    if of_loss:
        name = of_loss.pop("name")
        loss = model.loss.model_copy(update={"name": name, "options": of_loss})
        if name == "sampled_softmax" and not loss.negatives.model_fields_set:
            loss = loss.model_copy(update={"negatives": NegativesConfig(**NEGATIVES)})
            chosen |= {f"loss.negatives.{key}": value for key, value in NEGATIVES.items()}
        model = model.model_copy(update={"loss": loss})
    model = model.model_copy(update={"body": model.body.model_copy(update=of_body)})
    if of_head := _of_head(model, shape):
        chosen |= {f"heads.{NEXT_ITEM}.{name}": value for name, value in of_head.items()}
        head = model.heads[NEXT_ITEM]
        head = head.model_copy(update={"options": head.options | of_head})
        model = model.model_copy(update={"heads": model.heads | {NEXT_ITEM: head}})
    chosen |= {f"inputs.{name}": value for name, value in of_inputs.items()}
    model = model.model_copy(update={"inputs": model.inputs.model_copy(update=of_inputs)})
    return model, training.model_copy(update=of_training), chosen


def _of_training(training: TrainingConfig, shape: Shape, near: bool) -> dict[str, Any]:
    given, chosen = training.model_fields_set, dict[str, Any]()
    if shape.moves and "recent_days" not in given:
        chosen["recent_days"] = RECENT_DAYS
    if shape.moves and "epochs" not in given and training.order == "time":
        chosen["epochs"] = 1
    if "tokens_per_step" not in given:
        share = shape.recent_share if "recent_days" in chosen else 1.0
        tokens = tokens_per_step(round(share * shape.num_events))
        once = chosen.get("epochs", training.epochs) == 1 and training.order == "time"
        finer = "recent_days" in chosen and once  # more passes, or all days, were not measured with so many steps
        chosen["tokens_per_step"] = max(tokens // FINER, LEAST_MOVING) if finer else tokens
    if shape.histories and "order" not in given:
        chosen["order"] = "random"
    if shape.histories and chosen.get("order", training.order) == "random":
        chosen |= {name: value for name, value in _of_run(training).items() if name not in given}
    if shape.dense and "piece_events" not in given:
        chosen["piece_events"] = PIECE_EVENTS
    if near and not shape.histories and "schedule" not in given:
        chosen["schedule"] = "linear"
    if "learning_rate" not in given:
        falls = chosen.get("schedule", training.schedule) != "constant"
        chosen["learning_rate"] = _rate(chosen.get("tokens_per_step", training.tokens_per_step), shape, falls)
        if chosen["learning_rate"] > RATE and "warmup_steps" not in given:
            chosen["warmup_steps"] = WARMUP
    return chosen


def _of_run(training: TrainingConfig) -> dict[str, Any]:
    """How long a run over histories is, and how its rate falls."""
    if "schedule" in training.model_fields_set and training.schedule == "constant":
        return {"epochs": EPOCHS_OF_HISTORIES}
    # A run that is ended early never comes to the low rates in which it gains most.
    return {"epochs": FALLING_EPOCHS, "schedule": "linear", "patience": training.evaluations}


def _of_inputs(model: ModelConfig, shape: Shape) -> dict[str, Any]:
    """Positions, and where items begin; nothing for another body than the default, with which neither was measured."""
    if "name" in model.body.model_fields_set:
        return {}
    chosen = {"positions": "none"} if shape.long else {}
    if shape.near:
        chosen["item_start"] = "neighbours"
    return {name: value for name, value in chosen.items() if name not in model.inputs.model_fields_set}


def _rate(tokens: int, shape: Shape, falls: bool) -> float:
    if tokens <= FEW_TOKENS:
        return RATE_OF_FEW
    if shape.histories:
        return FALLING_RATE if falls else RATE
    return RATE_OF_FEW if tokens <= MORE_TOKENS and not shape.moves else RATE_OF_MANY


def _of_loss(model: ModelConfig, shape: Shape) -> dict[str, Any]:
    """The name of the loss, and options; nothing where either was given."""
    if NEXT_ITEM not in model.heads or {"name", "options"} & model.loss.model_fields_set:
        return {}
    if shape.num_items >= SAMPLED_FROM:
        return {"name": "sampled_softmax"}
    return {"name": "full_softmax"} | ({"label_smoothing": SPARSE_SMOOTHING} if shape.held_back else {})


def _of_head(model: ModelConfig, shape: Shape) -> dict[str, Any]:
    """Options of the head of the next item: a score per item that begins at its recent popularity, where that moves."""
    if not shape.moves or NEXT_ITEM not in model.heads:
        return {}
    given = model.heads[NEXT_ITEM].options
    chosen: dict[str, Any] = {} if "bias" in given else {"bias": True}
    if (given | chosen)["bias"] and "bias_half_life" not in given:
        chosen["bias_half_life"] = "chosen"
    return chosen


def _of_body(model: ModelConfig, shape: Shape) -> dict[str, Any]:
    given, chosen = model.body.model_fields_set, dict[str, Any]()
    if shape.histories and not {"name", "num_heads"} & given:  # another body than the default was not measured
        chosen["num_heads"] = 1
    wide = shape.sparse or shape.dense or (shape.near and not shape.histories)
    if wide and not {"name", "dim"} & given:
        chosen["dim"] = WIDE
    if (shape.held_back or shape.slow) and not {"name", "dropout"} & given:
        chosen["dropout"] = SPARSE_DROPOUT if shape.held_back else SLOW_DROPOUT
    if "attention_dropout" not in given:
        chosen["attention_dropout"] = chosen.get("dropout", model.body.dropout) if shape.histories else 0.0
    return chosen


def tokens_per_step(num_events: int) -> int:
    """Events of a step for sessions of so many in all."""
    wanted = TOKENS_PER_EVENTS * max(num_events, 1) ** (2 / 3)
    return int(min(max(2 ** round(math.log2(wanted)), LEAST_TOKENS), MOST_TOKENS))


def describe(chosen: dict[str, Any], shape: Shape) -> str:
    """What was chosen, in one line."""
    listed = ", ".join(f"{name} {value}" for name, value in chosen.items())
    kind = "histories" if shape.histories else "sessions"
    return (
        f"Chosen by the shape of the data ({kind}, {shape.num_events:,} events, {shape.num_items:,} items): {listed}."
    )
