"""What an optimizer had at the end of a training, kept by name of weight for the model that starts from this one."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from modeling.model import SequenceModel
from modeling.training.checkpoints import NAME, OPTIMIZER, write_tensors
from modeling.training.optimizer import parameter_groups


def parameter_names(model: nn.Module) -> list[str]:
    """The names of the parameters in the order in which an optimizer counts them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in parameter_groups(model, 0.0) for parameter in group["params"]]


def keep_moments(model: SequenceModel, checkpoints: Path, step: int, folder: Path) -> None:
    """Write to `folder`, by name of weight, what the optimizer had after a step, for the model that starts from this one."""
    path = checkpoints / f"{NAME}{step}" / OPTIMIZER
    if not path.is_file():
        return
    names, named = parameter_names(model), dict[str, Tensor]()
    for key, value in safetensors.torch.load_file(path).items():
        index, _, kind = key.partition("/")
        named[f"{names[int(index)]}/{kind}"] = value
    write_tensors(named, folder / OPTIMIZER)
