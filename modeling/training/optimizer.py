"""AdamW that also takes sparse gradients: with a large catalogue, only the rows of item vectors that a step has read.

A sampled loss reads some thousand rows of a table of a million. A dense gradient, two moments and weights of that size cost
more than all the rest of the step.

R rows that a step has read, E width of item vectors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

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
    return RowAdamW(groups, lr=config.learning_rate)


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


class RowAdamW(torch.optim.Optimizer):
    """AdamW (arXiv:1711.05101) in torch's fused kernel; where a gradient is sparse, Adam on the rows it holds (torch's
    SparseAdam), without weight decay.

    Rows not read keep their moments and do not move: not the same as Adam, which moves them for a while. The state has
    AdamW's names and shapes, the numbers are those of `torch.optim.AdamW(fused=True)` to the last bit. That one looks at every
    setting again at each step, and its first call imports the compiler (torch._dynamo): 1.3 CPU seconds of every process.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = BETAS,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "capturable": False}
        settings["fused"] = True  # so torch brings a state's number of steps to its parameter's device
        super().__init__(groups, settings)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of all gradients."""
        assert set_to_none
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; sparse gradients are gone after it."""
        assert closure is None
        for group in self.param_groups:
            self._step_whole(group, [parameter for parameter in group["params"] if parameter.grad is not None])

    def _step_whole(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        dense, states = [], []
        for parameter in parameters:
            state = self.state[parameter]
            assert parameter.grad is not None
            if parameter.grad.is_sparse:
                self._step_rows(parameter, state, group)
                parameter.grad = None
                continue
            if not state:
                state |= _moments(parameter, torch.zeros((), device=parameter.device))
            dense.append(parameter)
            states.append(state)
        if dense:
            beta1, beta2 = group["betas"]
            adamw(
                dense,
                [parameter.grad for parameter in dense if parameter.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=group["fused"],
                capturable=group["capturable"],
                amsgrad=False,
                maximize=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
            )

    def _step_rows(self, table_VE: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert table_VE.grad is not None
        beta1, beta2 = group["betas"]
        if not state:
            state |= _moments(table_VE, torch.tensor(0.0))
        state["step"] += 1
        steps = float(state["step"])
        grad = table_VE.grad.coalesce()
        row_R, grad_RE = grad.indices()[0], grad.values()
        mean_RE = state["exp_avg"][row_R].lerp_(grad_RE, 1 - beta1)
        square_RE = state["exp_avg_sq"][row_R].mul_(beta2).addcmul_(grad_RE, grad_RE, value=1 - beta2)
        state["exp_avg"][row_R], state["exp_avg_sq"][row_R] = mean_RE, square_RE
        change_RE = mean_RE / (square_RE / (1 - beta2**steps)).sqrt_().add_(group["eps"])
        table_VE.index_add_(0, row_R, change_RE, alpha=-group["lr"] / (1 - beta1**steps))


def _moments(parameter: Tensor, step: Tensor) -> dict[str, Tensor]:
    """What is kept of a parameter, before its first step."""
    return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
