"""Begin with the weights of another model of the same parts: ids were appended since, and only the newest sessions are read.

    same settings, same features   weights are copied; rows of tables go by raw value
    new items                      begin at the mean of the items with the same features, else as other new ids
    other new ids                  are drawn with the mean and the spread of their table
    numbers scaled anew            the line through a number is turned, so that a price means what it meant
    scores per item                begin at the newest day's popularity, as from scratch: the other model's are of another day
    optimizer                      goes on where the other model's folder holds its state; new rows begin at zero
    all weights                    are drawn some way back to where a model from scratch begins (`keep`)

Drawn back, because weights that have read the old sessions many times learn little of the new ones: an item that came up this
week stays behind, however often its sessions are read ("shrink and perturb": Ash and Adams, NeurIPS 2020, arXiv:1910.08475).

A row that the other model never trained is a new one. What it trained is read in inference, too, whether or not the newest
sessions hold it.

N reads of sessions, V ids of a table, R rows of the other model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
import torch
from torch import Tensor, nn

from modeling.config import NEXT_ITEM, ModelConfig
from modeling.features import Category, Feature, Line, read_features
from modeling.heads.next_item import NextItem
from modeling.items import ItemFeature
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.checkpoints import OPTIMIZER
from modeling.training.growing import as_column, grown, same_features
from modeling.training.misfit import misfit
from modeling.training.moments import parameter_names
from modeling.training.optimizer import RowAdamW
from modeling.training.sharding import is_cut
from modeling.vocabularies import SCHEMA, id_map
from schemas.columns import FIRST_ID, ID, ITEM_ID
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema

BIAS = f"heads.{NEXT_ITEM}.bias_V"  # begins at the popularity of tonight's newest day, as from scratch: items age
OWN = ("popularity_V", "reached_V", "values_V", "vectors_VP", "most_seconds")  # buffers that follow from tonight's data


@dataclass(frozen=True)
class Start:
    """The model to begin with; for each feature with a vocabulary that model's id of every id of tonight, [V], or -1; which
    training sessions are read in which order, positions [N]; and how much of its weights is kept, the rest being those of a
    model from scratch.
    """

    folder: Path
    parent: SequenceModel
    ids: dict[str, Tensor]
    reads_N: Tensor
    keep: float = 1.0

    @torch.no_grad()
    def give(self, model: SequenceModel, train: Sessions, items: pl.DataFrame | None) -> None:
        """Copy the weights into a model that has the statistics of the sessions read, and add what the other one reached.

        `train` are all training sessions, `items` is the item table: it says what new items have in common with old ones.
        """
        rows, same = self._rows(model), same_features(model.schema, items)
        old, scratch = self.parent.state_dict(), [weight.clone() for weight in model.parameters()]
        for name, weight in model.state_dict().items():
            if name == BIAS:
                continue
            if name in rows:
                row_V, of_items = rows[name]
                groups = [group_V[-len(row_V) :] for group_V in same] if of_items else []
                weight.copy_(grown(old[name], row_V, groups))
            elif _is_copied(model, name):
                weight.copy_(old[name])
        self._turn_lines(model)
        for weight, begun in zip(model.parameters(), scratch, strict=True):
            weight.lerp_(begun, 1 - self.keep)
        self._reach(model, train)

    def unlike(self, model: SequenceModel) -> str:
        """A weight that is no table of ids and has another shape than the other model's; empty where there is none."""
        rows, old = self._rows(model), self.parent.state_dict()
        for name, weight in model.state_dict().items():
            then = old.get(name)
            if name in rows:
                if then is None or then.shape[1:] != weight.shape[1:]:
                    return f"the table {name} is as wide as {list(weight.shape[1:])} now and was not in the model"
            elif _is_copied(model, name) and (then is None or then.shape != weight.shape):
                return f"the weight {name} has the shape {list(weight.shape)} now, {_shape(then)} in the model"
        return ""

    def give_moments(self, model: SequenceModel, optimizer: RowAdamW) -> bool:
        """Let the optimizer go on where the other model's stopped -> whether its folder holds the state of all weights."""
        path = self.folder / OPTIMIZER
        if is_cut(model) or not path.is_file():
            return False
        rows, names = self._rows(model), parameter_names(model)
        parameters = dict(model.named_parameters())
        slots: dict[int, dict[str, Any]] = {}
        for key, value in safetensors.torch.load_file(path).items():
            name, _, kind = key.rpartition("/")
            if name not in names:
                return False
            if kind != "step" and name in rows:
                row_V, _ = rows[name]
                value = torch.where(as_column(row_V >= 0, value), value[row_V.clamp(min=0)], 0.0)
            if kind != "step" and value.shape != parameters[name].shape:
                return False
            slots.setdefault(names.index(name), {})[kind] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        return True

    def _rows(self, model: SequenceModel) -> dict[str, tuple[Tensor, bool]]:
        """By name of each table of ids: the row of the other model that each row goes on from, -1 for new ones; whether it is
        a table of items.
        """
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        id_V = self._trained(ITEM_ID, self._item_rows_trained())
        rows: dict[str, tuple[Tensor, bool]] = {}
        items = model.inputs.items
        for table in (items.table_VE, items.pretrained.vectors_VP if items.pretrained else None):
            if id(table) in names:
                rows[names[id(table)]] = id_V, True
        for head in model.heads.values():
            for table in (head.items_VE, head.bias_V) if isinstance(head, NextItem) else ():
                if table is not None:
                    column_V = id_V[FIRST_ID:]
                    rows[names[id(table)]] = torch.where(column_V < 0, -1, column_V - FIRST_ID), True
        theirs = {column.name: feature for column, feature in features_of(self.parent)}
        for column, feature in features_of(model):
            if isinstance(feature.value, Category) and column.name in self.ids:
                trained = theirs[column.name].value.reached.reached_V  # type: ignore[union-attr]
                rows[names[id(feature.value.weight)]] = self._trained(column.name, trained), False  # type: ignore[arg-type]
        return rows

    def _trained(self, feature: str, trained_R: Tensor) -> Tensor:
        """The other model's id of every id of tonight, -1 where it never trained it; reserved ids as they are."""
        id_V = self.ids[feature]
        keep_V = (id_V >= 0) & (trained_R[id_V.clamp(min=0)] | (id_V < FIRST_ID))
        return torch.where(keep_V, id_V, -1)

    def _item_rows_trained(self) -> Tensor:
        """Which items the other model read or was asked for, [R]."""
        trained_R = self.parent.inputs.items.reached.reached_V.clone()
        if NEXT_ITEM in self.parent.heads:
            trained_R[FIRST_ID:] |= self.parent.next_item.popularity_V > 0
        return trained_R

    def _turn_lines(self, model: SequenceModel) -> None:
        """w (x - mean) / std + b, with tonight's mean and std, is what it was with those of the other model."""
        theirs = {column.name: column for column, _ in features_of(self.parent)}
        for column, feature in features_of(model):
            then = theirs[column.name]
            for line in feature.modules() if column.kind == "continuous" else ():
                if isinstance(line, Line) and (column.mean, column.std) != (then.mean, then.std):
                    line.bias.add_(line.weight[:, 0] * ((column.mean - then.mean) / then.std))
                    line.weight.mul_(column.std / then.std)

    def _reach(self, model: SequenceModel, train: Sessions) -> None:
        """What the other model trained is read and recommended, too, as far as tonight's sessions hold it."""
        own, old = model.inputs, self.parent.inputs
        self._also(own.items.reached.reached_V, old.items.reached.reached_V, ITEM_ID)
        features = {column.name: feature.value for column, feature in features_of(self.parent)}
        for column, feature in features_of(model):
            if isinstance(feature.value, Category):
                then = features[column.name]
                assert isinstance(then, Category)
                self._also(feature.value.reached.reached_V, then.reached.reached_V, column.name)
        own.most_seconds.copy_(torch.maximum(own.most_seconds, old.most_seconds))
        model.longest = max(model.longest, self.parent.longest)
        if NEXT_ITEM in model.heads:
            head, id_V = model.next_item, self._trained(ITEM_ID, self._item_rows_trained())
            trained_V = (head.popularity_V > 0) | (id_V[FIRST_ID:] >= 0)
            head.popularity_V.copy_(train.item_counts(len(head.popularity_V)) * trained_V)
            head.uniform_U = head.popularity_V.nonzero().squeeze(1)

    def _also(self, reached_V: Tensor, reached_R: Tensor, feature: str) -> None:
        id_V = self.ids.get(feature, torch.arange(len(reached_V)))
        reached_V |= (id_V >= 0) & reached_R[id_V.clamp(min=0)]


def _is_copied(model: SequenceModel, name: str) -> bool:
    return name.rpartition(".")[2] not in OWN or name in dict(model.named_parameters())


def _shape(weight: Tensor | None) -> str:
    return "none" if weight is None else str(list(weight.shape))


def read_start(
    folder: Path,
    sessions: Path,
    config: ModelConfig,
    reads_N: Tensor,
    items: pl.DataFrame | None = None,
    keep: float = 1.0,
) -> Start:
    """The model in `folder` for sessions in the folder `sessions`, to be trained with `config` on those at `reads_N`.

    `keep` is the share of its weights that training begins with.

    Raises:
        InputError: when it cannot be read or does not fit, with the reason: other settings, a feature that is gone or is made
            another way.
    """
    parent, schema = SequenceModel.load(folder), FeatureSchema.read(sessions / SCHEMA)
    if problem := misfit(parent, config, schema):
        raise InputError(problem)
    then = {column.name: column for column in parent.schema.columns}
    ids = {}
    for column in (schema.items, *read_features(config, schema)):
        if column.vocabulary:
            assert column.cardinality
            id_V = id_map(sessions, column, folder, then[column.name]).long()
            first = _first_value(sessions, column)
            ids[column.name] = torch.where((torch.arange(len(id_V)) >= first) & (id_V < first), -1, id_V)
    start, fresh = Start(folder, parent, ids, reads_N, keep), SequenceModel(config, schema)
    fresh.inputs.items.set_items(items, lambda line: None)
    if problem := start.unlike(fresh):
        raise InputError(problem)
    return start


def _first_value(folder: Path, column: FeatureColumn) -> int:
    """The first id of a raw value: those before are reserved, for unknown values of several buckets, too."""
    assert column.vocabulary
    lowest = pl.read_parquet(folder / column.vocabulary, glob=False)[ID].min()
    return FIRST_ID if lowest is None or column.name == ITEM_ID else int(lowest)  # type: ignore[arg-type]


def features_of(model: SequenceModel) -> list[tuple[FeatureColumn, Feature]]:
    """The side features that a model reads, of events and of items, each with its layer."""
    items, columns = model.inputs.items, {column.name: column for column in model.schema.columns}
    layers: list[tuple[FeatureColumn, nn.Module]]
    layers = [(columns[name], layer) for name, layer in zip(model.inputs.side_names, model.inputs.side, strict=True)]
    if items.tower:
        layers += [
            (column, of.vector)
            for column, of in zip(items.columns, items.tower.features, strict=True)
            if isinstance(of, ItemFeature)
        ]
    return [(column, layer) for column, layer in layers if isinstance(layer, Feature)]
