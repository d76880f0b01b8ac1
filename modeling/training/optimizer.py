"""AdamW that also takes sparse gradients: with a large catalogue, only the rows of item vectors that a step has read.

A sampled loss reads some thousand rows of a table of a million. A dense gradient, two moments and weights of that size cost
more than all the rest of the step.

R rows that a step has read, E width of item vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from modeling.config import NEXT_ITEM, TrainingConfig
from modeling.features import SoftOneHot
from modeling.heads.next_item import NextItem
from modeling.items import ItemVectors
from modeling.model import SequenceModel
from modeling.vectors import Pretrained

BETAS = (0.9, 0.98)
TABLES = (nn.Embedding, nn.EmbeddingBag, ItemVectors, NextItem, Pretrained, SoftOneHot)  # whose own parameters are rows
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)

NormOf = Callable[[nn.Parameter, Tensor], Tensor]
SPARSE_FROM = {
    "cpu": 50_000,
    "cuda": 10_000_000,
}  # items; below, dense steps cost about as little (on a GPU: estimated)


def use_sparse_gradients(model: SequenceModel, device: str) -> bool:
    """Let the gradients of item vectors hold only the rows read, where that pays: a sampled loss, a large catalogue."""
    if NEXT_ITEM not in model.heads:
        return False
    head = model.next_item
    pays = head.sampled and model.schema.num_items >= SPARSE_FROM[device]
    model.inputs.items.sparse = head.sparse = pays
    return pays


def make_optimizer(model: SequenceModel, config: TrainingConfig) -> RowAdamW:
    """AdamW whose weight decay reaches the matrices of layers alone."""
    groups = parameter_groups(model, config.weight_decay)
    return RowAdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)  # a quarter of the time, or less


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters that are trained, as the groups of an optimizer: those that decay, and the rest."""
    decays: dict[nn.Parameter, bool] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                decays[parameter] = decays.get(parameter, True) and is_matrix(parameter, module)
    return [
        {"params": [parameter for parameter, decay in decays.items() if decay], "weight_decay": weight_decay},
        {"params": [parameter for parameter, decay in decays.items() if not decay], "weight_decay": 0.0},
    ]


def is_matrix(parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether a module's own parameter is a matrix that it multiplies with: what weight decay is for.

    Rows of tables are not: those a step does not read would fade. Nor are norms, single vectors, and parameters with fewer
    dimensions than the rest of their module, its biases. `parameter._no_weight_decay = True` (as in Mamba's code) says so, too.
    """
    if isinstance(module, (*TABLES, *NORMS)) or getattr(parameter, "_no_weight_decay", False):
        return False
    most = max(other.dim() for other in module.parameters(recurse=False))
    is_vector = parameter.numel() == max(parameter.shape, default=1) and not isinstance(module, nn.Linear)
    return parameter.dim() == most and most >= 2 and not is_vector


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, norm_of: NormOf | None = None) -> None:
    """Scale all gradients down together where their norm exceeds `max_norm`, sparse ones too, without asking the device.

    `norm_of` gives the norm of a parameter's gradient where processes have parts of it.
    """
    values, norms = [], []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # rows read twice have one gradient
        values.append(parameter.grad._values() if parameter.grad.is_sparse else parameter.grad)
        norms.append(norm_of(parameter, values[-1]) if norm_of else torch.linalg.vector_norm(values[-1]))
    scale = (max_norm / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)


class RowAdamW(torch.optim.AdamW):
    """AdamW; where a gradient is sparse, Adam on the rows it holds (torch's SparseAdam), without weight decay.

    Rows not read keep their moments and do not move: not the same as Adam, which moves them for a while. The state has
    AdamW's names and shapes.

    No compiler ever looks into it. torch keeps its compiler out of these methods by a wrapper that loads the compiler: a
    second of CPU time and 100 MB of every process that trains. What is wrapped does the same without.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    _step_dense = unwrap(torch.optim.AdamW.step)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; sparse gradients are gone after it."""
        assert closure is None
        for group in self.param_groups:
            for table_VE in group["params"]:
                if table_VE.grad is not None and table_VE.grad.is_sparse:
                    self._step_rows(table_VE, group)
                    table_VE.grad = None
        self._step_dense()

    def _step_rows(self, table_VE: Tensor, group: dict[str, Any]) -> None:
        assert table_VE.grad is not None
        state, (beta1, beta2) = self.state[table_VE], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table_VE), torch.zeros_like(table_VE)
        state["step"] += 1
        steps = float(state["step"])
        grad = table_VE.grad.coalesce()
        row_R, grad_RE = grad.indices()[0], grad.values()
        mean_RE = state["exp_avg"][row_R].lerp_(grad_RE, 1 - beta1)
        square_RE = state["exp_avg_sq"][row_R].mul_(beta2).addcmul_(grad_RE, grad_RE, value=1 - beta2)
        state["exp_avg"][row_R], state["exp_avg_sq"][row_R] = mean_RE, square_RE
        change_RE = mean_RE / (square_RE / (1 - beta2**steps)).sqrt_().add_(group["eps"])
        table_VE.index_add_(0, row_R, change_RE, alpha=-group["lr"] / (1 - beta1**steps))
