"""What losses, objectives and heads obey as parts of a tiny model: numbers are finite, nothing leaks, everything learns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flows.laws import Law, require
from modeling import bodies, losses, objectives, parts
from modeling.batches import Batch
from modeling.config import NEXT_ITEM, ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.schedule import make_schedule
from schemas import plugins
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema, LabelColumn

NUM_ITEMS = 50
LABEL = "bought"


@dataclass(frozen=True)
class Trial:
    """A model that the part is in: groups of settings as of ModelConfig."""

    groups: dict[str, Any]

    def model(self) -> SequenceModel:
        """The model, the same every time."""
        torch.manual_seed(3)
        config = ModelConfig.model_validate({"body": {"name": "sasrec", "dim": 16, "dropout": 0.0}} | self.groups)
        labels = tuple(label for label in config.heads if label != NEXT_ITEM)
        return SequenceModel(config, schema_of(NUM_ITEMS, labels=labels or (LABEL,))).eval()


def schema_of(num_items: int, max_length: int = 20, labels: tuple[str, ...] = (LABEL,)) -> FeatureSchema:
    """Items, a category, a price, and labels for heads to predict."""
    columns = (
        FeatureColumn(
            name=ITEM_ID, kind="categorical", source=ITEM_ID, dtype="int32", cardinality=num_items + FIRST_ID,
            vocabulary="vocabularies/item_id.parquet",
        ),
        FeatureColumn(name="type", kind="categorical", source="type", dtype="int32", cardinality=FIRST_ID + 5),
        FeatureColumn(name="price", kind="continuous", source="price", dtype="float32"),
    )  # fmt: skip
    label_columns = tuple(LabelColumn(name=label, per="session", source=label) for label in labels)
    return FeatureSchema(dataset="trial", max_length=max_length, split="day", columns=columns, labels=label_columns)


def chains(count: int, num_items: int, seed: int = 0, labels: tuple[str, ...] = (LABEL,)) -> Sessions:
    """Sessions that step through the catalogue by a fixed rule, from a random start: wholly predictable."""
    generator = torch.Generator().manual_seed(seed)
    following = torch.roll(torch.arange(num_items), 7)
    steps = [torch.randint(0, num_items, (count,), generator=generator)]
    for _ in range(5):
        steps.append(following[steps[-1]])
    items = (torch.stack(steps, 1) + FIRST_ID).to(torch.int32).flatten()
    lengths = torch.full((count,), 6)
    return Sessions(
        events={ITEM_ID: items, "type": items % 5 + FIRST_ID, "price": (items % 7).float() / 7},
        starts=lengths.cumsum(0) - lengths,
        lengths=lengths,
        end=torch.arange(count) * 1_000_000,
        labels={label: (steps[-1] % 2).float() for label in labels},
    )


def its_loss_and_gradients_are_finite(trial: Trial) -> None:
    """The loss is one finite number, and so are the gradients of all weights that are trained."""
    model = trial.model().train()
    loss = model(batch_of(model))
    require(loss.dim() == 0 and bool(loss.isfinite()), f"It is {loss.detach()}.")
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            require(bool(parameter.grad.isfinite().all()), f"The gradient of {name} is not.")


def the_loss_goes_down(trial: Trial) -> None:
    """Trained on one batch over and over, the loss goes down."""
    model = trial.model().train()
    batch, found = batch_of(model), []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(10):
        loss = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    require(sum(found[-2:]) < 0.95 * sum(found[:2]), f"In ten steps it went {', '.join(f'{x:.3g}' for x in found)}.")


def what_comes_next_is_not_seen(trial: Trial) -> None:
    """The states that recommend do not depend on the item that comes next."""
    model, sessions, other = trial.model(), chains(20, NUM_ITEMS), chains(20, NUM_ITEMS)
    last = other.starts + other.lengths - 1
    other.items[last] = FIRST_ID + (other.items[last] - FIRST_ID + 17) % NUM_ITEMS
    with torch.no_grad():
        same = torch.equal(model.states(sessions.drop_last(1)), model.states(other.drop_last(1)))
    require(same, "They do.")


def saved_and_loaded_models_are_the_same(trial: Trial) -> None:
    """A model that was saved and loaded gives the same states."""
    model, sessions = trial.model(), chains(5, NUM_ITEMS)
    with TemporaryDirectory() as folder, torch.no_grad():
        model.save(Path(folder))
        again = SequenceModel.load(Path(folder))
        require(torch.equal(model.states(sessions), again.states(sessions)), "They differ.")


def a_loss_is_one_number_a_prediction(trial: Trial) -> None:
    """A sampled loss is one number for each prediction, from its own scores; one of the catalogue is their weighted sum."""
    if not (loss := _loss_of(trial)):
        return
    generator = torch.Generator().manual_seed(0)
    h_ND, items_VD, positive_N = (torch.randn(size, generator=generator) for size in ((8, 4), (NUM_ITEMS, 4), (8,)))
    if losses.is_sampled(loss.func):
        negative_NK = torch.randn(8, 5, generator=generator)
        loss_N = loss(positive_N, negative_NK, NUM_ITEMS)
        require(list(loss_N.shape) == [8], f"For 8 predictions its shape is {list(loss_N.shape)}: take no mean.")
        alone_N = torch.cat([loss(positive_N[[n]], negative_NK[[n]], NUM_ITEMS) for n in range(8)])
        require(torch.allclose(loss_N, alone_N, atol=1e-5), f"{loss_N.tolist()}; one by one {alone_N.tolist()}.")
        return
    bias_V, target_N = torch.zeros(NUM_ITEMS), torch.arange(8)
    weight_N = torch.rand(8, generator=generator)
    whole = loss(h_ND, items_VD, bias_V, target_N, weight_N)
    require(whole.dim() == 0, f"Its shape is {list(whole.shape)}, not [].")
    each = [loss(h_ND[[n]], items_VD, bias_V, target_N[[n]], torch.ones(1)) for n in range(8)]
    weighed = float(torch.stack(each) @ weight_N)
    require(abs(float(whole) - weighed) < 1e-4, f"{float(whole):.6g}; one by one, weighed: {weighed:.6g}.")


def negatives_that_do_not_count_change_nothing(trial: Trial) -> None:
    """A sampled negative with the score -inf does not count: the loss is what it would be had it not been drawn."""
    loss = _loss_of(trial)
    if not loss or not losses.is_sampled(loss.func):
        return
    generator = torch.Generator().manual_seed(0)
    positive_N, negative_NK = (torch.randn(size, generator=generator) for size in ((8,), (8, 5)))
    more_NK = torch.cat([negative_NK, torch.full((8, 2), -torch.inf)], 1)
    without_N, with_N = (loss(positive_N, some, NUM_ITEMS) for some in (negative_NK, more_NK))
    same = torch.allclose(without_N, with_N, rtol=0, atol=1e-5)
    require(same, f"It is {with_N.tolist()} instead of {without_N.tolist()}.")
    none_N = loss(positive_N, torch.full((8, 2), -torch.inf), NUM_ITEMS)
    require(bool(none_N.isfinite().all()), f"It is {none_N.tolist()} where no negative counts.")


LAWS: tuple[Law, ...] = (
    a_loss_is_one_number_a_prediction,
    its_loss_and_gradients_are_finite,
    the_loss_goes_down,
    what_comes_next_is_not_seen,
    saved_and_loaded_models_are_the_same,
    negatives_that_do_not_count_change_nothing,
)


def trial_of(kind: str, name: str, options: dict[str, Any]) -> Trial:
    """A model that a body, loss, objective or head of that name is in, with what goes with it."""
    chosen = {"name": name, **options}
    if kind == "losses":
        return Trial({"loss": {**chosen, "negatives": {"count": 16}}})
    if kind == "heads":
        return Trial({"heads": {LABEL: chosen} if name != NEXT_ITEM else {NEXT_ITEM: chosen}})
    if kind == "bodies":
        goals = ("causal", *plugins.names(objectives))
        goal = next(goal for goal in goals if parts.goes_together(name, goal))
        return Trial({"body": {**chosen, "dim": 16, "dropout": 0.0}, "objective": {"name": goal}})
    body = next(body for body in ("sasrec", *plugins.names(bodies)) if parts.goes_together(body, name))
    return Trial({"objective": chosen, "body": {"name": body, "dim": 16, "dropout": 0.0}})


def _loss_of(trial: Trial) -> partial[Any] | None:
    """The loss with its options, where the trial is of one."""
    chosen = {key: value for key, value in trial.groups.get("loss", {}).items() if key != "negatives"}
    if not chosen:
        return None
    name = chosen.pop("name")
    return partial(plugins.find(losses, name), **plugins.read_options(losses, name, chosen, "loss"))


def batch_of(model: SequenceModel) -> Batch:
    """A training batch of chains."""
    sessions = chains(30, NUM_ITEMS, labels=tuple(column.name for column in model.schema.labels))
    return make_schedule(model, sessions, TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
