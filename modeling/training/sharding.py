"""Training with the table of item vectors divided over processes: cut it, put it together again, keep it in checkpoints.

Of a number of the table a process holds the weight, its gradient and two moments, 16 bytes, for its own rows only. Validation
needs all rows for a while, 4 bytes a number; the model that is saved is put together in the memory of the first host.

V rows, R of them here, E width of item vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from modeling.config import NEXT_ITEM, ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.shards import Shard
from modeling.training.distributed import num_processes, rank
from schemas.columns import FIRST_ID
from schemas.errors import InputError

TABLE = "inputs.items.table_VE"


def check_shards(model: ModelConfig, config: TrainingConfig) -> None:
    """
    Raises:
        InputError: for settings that do not go with a table of item vectors that is divided over processes.
    """
    if not config.shard_items:
        return
    head = model.heads.get(NEXT_ITEM)
    reasons = {
        "training.devices is 1": config.devices == 1,
        "inputs.item_tower is set": model.inputs.item_tower != "none",
        "inputs.pretrained is set": model.inputs.pretrained is not None,
        "heads.next_item.table is separate": head is not None and head.options.get("table") == "separate",
        "objective replaced_token proposes items from all of them": model.objective.name == "replaced_token",
        "loss.label_smoothing is set": model.loss.name == "full_softmax"
        and bool(model.loss.options.get("label_smoothing")),
        "the objective or the loss is not built in": not _is_built_in(model),
    }
    if given := [reason for reason, holds in reasons.items() if holds]:
        raise InputError(
            f"training.shard_items divides the item table over devices, which does not go with: {'; '.join(given)}."
        )


def _is_built_in(model: ModelConfig) -> bool:
    from modeling import losses, objectives
    from schemas import places

    kinds = ((losses, model.loss.name), (objectives, model.objective.name))
    return all(places.places(kind)[name].origin == places.BUILT_IN for kind, name in kinds)


def cut(model: SequenceModel) -> None:
    """Keep this process's rows of the item table alone.

    Raises:
        InputError: when there are too few items for all processes to have one.
    """
    items = model.inputs.items
    shard = Shard(len(items.table_VE), rank(), num_processes())
    if shard.total // shard.count <= FIRST_ID:
        raise InputError(
            f"training.shard_items: {shard.total - FIRST_ID} items are too few for {shard.count} devices. Leave it out; it is "
            "for millions of items."
        )
    items.table_VE = nn.Parameter(items.table_VE.detach()[shard.first : shard.first + shard.num_rows].clone())
    items.shard = shard


@contextmanager
def whole(model: SequenceModel) -> Iterator[None]:
    """Within, every process has the whole item table, to be read."""
    items = model.inputs.items
    table_RE, shard = items.table_VE, items.shard
    if shard is None:
        yield
        return
    table_VE = table_RE.new_empty(shard.total, table_RE.shape[1])
    for number in range(shard.count):
        first, last = shard.bounds(number)
        if number == shard.rank:
            table_VE[first:last] = table_RE.detach()
        dist.broadcast(table_VE[first:last], number)
    items.table_VE, items.shard = nn.Parameter(table_VE), None
    try:
        yield
    finally:
        items.table_VE, items.shard = table_RE, shard


def put_together(model: SequenceModel) -> None:
    """The model of the first process gets the whole item table, in the memory of its host; those of the rest are of no use."""
    items = model.inputs.items
    if (shard := items.shard) is None:
        return
    rows = items.table_VE.detach().cpu()
    if shard.rank:
        dist.send(rows, 0)
        return
    model.cpu()
    table_VE = rows.new_empty(shard.total, rows.shape[1])
    table_VE[: len(rows)] = rows
    for number in range(1, shard.count):
        first, last = shard.bounds(number)
        dist.recv(table_VE[first:last], number)
    items.table_VE, items.shard = nn.Parameter(table_VE), None


def file_of(number: int) -> str:
    """The file of a checkpoint that holds what another process than the first has of the item table."""
    return f"shard-{number}.safetensors"


def write_rows(folder: Path, model: SequenceModel, optimizer: torch.optim.Optimizer) -> None:
    """Write this process's rows of the item table and their moments; the first one's are in the ordinary files."""
    table_RE = model.inputs.items.table_VE
    tensors = {TABLE: table_RE.detach(), **optimizer.state[table_RE]}
    if rank():
        safetensors.torch.save_file(
            {name: value.cpu().contiguous() for name, value in tensors.items()}, folder / file_of(rank())
        )


def with_own_rows(weights: dict[str, Tensor], folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights of a checkpoint with this process's rows of the item table."""
    if not (is_cut(model) and rank()):
        return weights
    return weights | {TABLE: safetensors.torch.load_file(folder / file_of(rank()))[TABLE]}


def read_moments(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer the moments of this process's rows."""
    if isinstance(model, SequenceModel) and is_cut(model) and rank():
        table_RE = model.inputs.items.table_VE
        for name, value in safetensors.torch.load_file(folder / file_of(rank())).items():
            if name != TABLE:
                optimizer.state[table_RE][name] = value.to(optimizer.state[table_RE][name].device)


def is_cut(model: nn.Module) -> bool:
    """Whether this process has only some rows of the item table."""
    return isinstance(model, SequenceModel) and model.inputs.items.shard is not None
