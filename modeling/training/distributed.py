"""Several processes that train one model together, one on each device: what they tell each other.

    a step = each process reads its part of the batch -> one all-reduce of loss and gradients -> the same AdamW everywhere

Losses are divided by the sums of the whole batch (see `division`), so that the sum over processes is the loss of one process.
The first process alone speaks and writes. In a single process, all of this does nothing.

R rows that a step has read, E width of item vectors, V rows of a table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from modeling.batches import Batch
from modeling.model import SequenceModel
from modeling.training.division import part_of
from modeling.training.plan import Plan
from schemas.errors import InputError

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets for each process
PATIENCE = timedelta(days=1)  # processes may wait while the first one prepares; one that dies is noticed at once
CHECKSUMS = 1 << 24  # as many whole numbers have a place in float32


def num_processes() -> int:
    """How many processes train together, this one included."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if num_processes() > 1 else 0


def is_first() -> bool:
    """Whether this process speaks and writes."""
    return rank() == 0


@contextmanager
def joined(number: int | None = None, count: int | None = None, store: dist.Store | None = None) -> Iterator[None]:
    """Be process `number` of `count`, which meet at `store`; without these as the variables of torchrun say.

    Raises:
        InputError: when such a variable is missing.
    """
    if store is None or number is None or count is None:
        if missing := [name for name in VARIABLES if not os.environ.get(name)]:
            raise InputError(
                f"WORLD_SIZE={os.environ.get('WORLD_SIZE')} says that several processes train together, but "
                f"{', '.join(missing)} is not set: start them with torchrun, or one with --devices, or unset WORLD_SIZE."
            )
        store, number, count = next(rendezvous("env://", timeout=PATIENCE))
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", number)))
    dist.init_process_group(BACKENDS[kind], store=store, rank=number, world_size=count, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Until all processes are here."""
    if num_processes() > 1:
        dist.all_reduce(torch.zeros(1))


def summed(value: float) -> float:
    """The sum of a number over all processes, at each of them."""
    if num_processes() == 1:
        return value
    number = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(number)
    return float(number)


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does this before all other ones do."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def divided(count: int, device: torch.device, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """The results of `measure` for 0 .. count - 1, in order, at every process; each measures some, given as positions."""
    places = torch.arange(rank(), count, num_processes(), device=device)
    values = measure(places)
    if num_processes() == 1:
        return values
    whole = values.new_zeros(count)
    whole[places.to(values.device)] = values
    dist.all_reduce(whole)
    return whole


class Together:
    """The steps of a model that this process trains, alone or with several."""

    def __init__(self, model: SequenceModel, plan: Plan) -> None:
        """
        Raises:
            RuntimeError: when the weights are not those of the other processes.
        """
        self.model, self.plan, self.count, self.step = model, plan, num_processes(), 0
        items = model.inputs.items
        self.table = (
            items.table_VE if items.shard else None
        )  # each process has rows of its own, whose gradients are whole
        self.shared = [weight for weight in model.parameters() if weight is not self.table]
        self.draws = torch.Generator()
        self.dense: list[nn.Parameter] = []
        self.sparse: list[nn.Parameter] = []
        if self.count > 1:
            checksums = torch.zeros(self.count, device=model.device)
            checksums[rank()] = checksum(self.shared)
            dist.all_reduce(checksums)
            require_equal(checksums)

    def begin(self, step: int) -> None:
        """Before a step, from 0.

        What a loss draws for the whole batch comes from the generator that a single process draws from; what layers draw,
        dropout most of all, is a function of the seed, the step and the process.
        """
        self.step = step
        if self.count > 1:
            self.draws.set_state(torch.get_rng_state())
            torch.manual_seed((self.plan.config.seed * 1_000_003 + step) * self.count + rank())

    def part(self, batch: Batch) -> Batch:
        """This process's part of the batch of the step."""
        if self.count == 1:
            return batch
        on_cpu = self.model.device.type == "cpu"
        return part_of(batch, rank(), self.count, self.draws if on_cpu else None)

    def sum(self, loss: Tensor) -> Tensor:
        """The loss of the whole batch, and its gradients in the place of those of this process's part: one all-reduce.

        Gradients that hold only the rows read are gathered. Before a line of the log, weights are compared.

        Raises:
            RuntimeError: when weights are not those of the other processes any more.
        """
        if self.count == 1:
            return loss.detach()
        torch.set_rng_state(self.draws.get_state())
        if not self.dense:
            self._agree()
        check = self.step + 1 in self.plan.logs
        head = torch.zeros(1 + self.count, device=loss.device)  # the loss, and checksums of each process's weights
        head[0] = loss.detach()
        if check:
            head[1 + rank()] = checksum(self.shared)
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self.dense]
        flat = torch.cat([head, *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        head, *summed = flat.split([len(head), *(gradient.numel() for gradient in gradients)])
        for weight, gradient in zip(self.dense, summed, strict=True):
            weight.grad = gradient.view_as(weight)
        for table_VE in self.sparse:
            table_VE.grad = gathered_rows(table_VE)
        if check:
            require_equal(head[1:])
        return head[0]

    def norm(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        """The norm of a weight's gradient, of which this process may have some rows; a scalar."""
        norm: Tensor = torch.linalg.vector_norm(gradient)
        if weight is self.table:
            square = norm.square()
            dist.all_reduce(square)
            norm = square.sqrt()
        return norm

    def _agree(self) -> None:
        """Which parameters get gradients at any process, and which of these hold only rows: settled at the first step."""
        weights = [weight for weight in self.shared if weight.requires_grad]
        kinds = torch.tensor([0 if (grad := weight.grad) is None else 1 + grad.is_sparse for weight in weights])
        dist.all_reduce(kinds, dist.ReduceOp.MAX)
        self.dense = [weight for weight, kind in zip(weights, kinds.tolist(), strict=True) if kind == 1]
        self.sparse = [weight for weight, kind in zip(weights, kinds.tolist(), strict=True) if kind == 2]


def gathered_rows(table_VE: Tensor) -> Tensor:
    """The sum over processes of a table's sparse gradient, sparse itself. Rows and their numbers travel as one tensor."""
    width = table_VE.shape[1]
    if table_VE.grad is None:
        row_R, grad_RE = torch.empty(0, dtype=torch.long, device=table_VE.device), table_VE.new_empty(0, width)
    elif table_VE.is_cpu:
        grad = table_VE.grad.coalesce()  # fewer rows to send; a GPU would have to say how many
        row_R, grad_RE = grad.indices()[0], grad.values()
    else:
        row_R, grad_RE = table_VE.grad._indices()[0], table_VE.grad._values()
    counts = torch.zeros(num_processes(), dtype=torch.long)
    counts[rank()] = len(row_R)
    dist.all_reduce(counts)
    most = int(counts.max())
    sent = grad_RE.new_zeros(most, width + 1)
    sent[: len(row_R), :width], sent[: len(row_R), width] = grad_RE, row_R.int().view(torch.float32)
    received = [torch.empty_like(sent) for _ in range(num_processes())]
    dist.all_gather(received, sent)
    rows = torch.cat([part[:size] for part, size in zip(received, counts.tolist(), strict=True)])
    numbers = rows[:, width].contiguous().view(torch.int32).long()
    return torch.sparse_coo_tensor(numbers[None], rows[:, :width], table_VE.shape, check_invariants=False).coalesce()


@torch.no_grad()
def checksum(weights: list[nn.Parameter]) -> Tensor:
    """A number from 0 to 2^24 - 1 that depends on every bit of the weights, as float32; a scalar."""
    sums = [weight.detach().contiguous().view(torch.int32).sum() for weight in weights]
    shares = torch.arange(1, 1 + len(sums), device=sums[0].device)  # weights that are swapped are other weights
    return ((torch.stack(sums) * shares).sum() % CHECKSUMS).float()


def require_equal(checksums: Tensor) -> None:
    """
    Raises:
        RuntimeError: when the processes do not have the same weights.
    """
    numbers = checksums.tolist()
    if len(set(numbers)) > 1:
        raise RuntimeError(
            f"The {len(numbers)} processes that train together do not have the same weights (checksums "
            f"{', '.join(f'{number:.0f}' for number in numbers)}): one of them runs another version, or computes wrongly."
        )
