"""The softmax over the whole catalogue: the numbers of the plain one, in the types and sizes that were meant."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.config import TrainingConfig
from modeling.losses._chunked import CHUNK_BYTES
from modeling.losses.full_softmax import full_softmax
from modeling.training.schedule import make_schedule
from tests.conftest import model_of, random_sessions

NUM_ITEMS, WIDTH = 200, 8
PRODUCTS = ("mm", "bmm", "addmm", "addmm_")


class Recorded(TorchDispatchMode):
    """Every operation with the types of the tensors it was given, and its largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[torch.dtype, ...]]] = []
        self.largest = 0

    def __torch_dispatch__(self, operation: Any, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        given = tuple(arg.dtype for arg in args if isinstance(arg, Tensor))
        self.calls.append((operation.__name__.partition(".")[0], given))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result

    def types(self, *names: str) -> set[torch.dtype]:
        """The types given to some operations."""
        return {dtype for name, given in self.calls if name in names for dtype in given}


@pytest.fixture(autouse=True)
def six_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50 rows, where there are 300."""
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 50 * NUM_ITEMS * 4)


def given(count: int, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
    """States, items, bias, targets and weights, some of which are 0."""
    generator = torch.Generator().manual_seed(count)
    h_ND, items_VD, bias_V = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((count, WIDTH), (NUM_ITEMS, WIDTH), (NUM_ITEMS,))
    )
    target_N = torch.randint(NUM_ITEMS, (count,), generator=generator)
    weight_N = torch.rand(count, generator=generator, dtype=torch.float64) / count
    weight_N[1::3] = 0
    return [h_ND, items_VD, bias_V if bias else None, target_N, weight_N.to(dtype)]


def plain(
    h_ND: Tensor, items_VD: Tensor, bias_V: Tensor | None, target_N: Tensor, weight_N: Tensor, e: float
) -> Tensor:
    loss_N = F.cross_entropy(F.linear(h_ND, items_VD, bias_V), target_N, label_smoothing=e, reduction="none")
    return loss_N @ weight_N


def off(found: Tensor, right: Tensor) -> float:
    """The relative error of a tensor."""
    return float((found.detach().double() - right.detach()).norm() / right.detach().norm())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("count", [1, 3, 50, 300, 317])
@pytest.mark.parametrize("bias", [True, False])
def test_loss_and_gradients_are_those_of_float64(count: int, bias: bool, smoothing: float) -> None:
    ours, exact = given(count, bias=bias), given(count, bias=bias, dtype=torch.float64)
    found, right = full_softmax(*ours, label_smoothing=smoothing), plain(*exact, smoothing)  # type: ignore[arg-type]
    assert found.dtype == torch.float32 and off(found, right) < 1e-6
    (3 * found).backward(), (3 * right).backward()
    for one, other in zip(ours[:3], exact[:3], strict=True):
        if one is not None and other is not None:
            assert off(one.grad, other.grad) < 1e-5


def test_gradients_are_those_of_finite_differences() -> None:
    *tensors, target_N, weight_N = given(7, dtype=torch.float64)
    smoothed = partial(full_softmax, label_smoothing=0.2)
    assert torch.autograd.gradcheck(lambda *three: smoothed(*three, target_N, weight_N), tensors)


@pytest.mark.parametrize("wanted", range(3))
def test_one_gradient_alone_is_what_it_is_with_the_others(wanted: int) -> None:
    together, alone = given(120), given(120)
    full_softmax(*together, label_smoothing=0.1).backward()  # type: ignore[arg-type]
    for place in set(range(3)) - {wanted}:
        alone[place] = alone[place].detach()
    full_softmax(*alone, label_smoothing=0.1).backward()  # type: ignore[arg-type]
    torch.testing.assert_close(alone[wanted].grad, together[wanted].grad, rtol=0, atol=0)


def test_a_table_that_is_read_and_scored_against_gets_both_gradients() -> None:
    _, table_VD, _, target_N, weight_N = given(60)
    _, exact_VD, _, _, exact_N = given(60, dtype=torch.float64)
    read_N = target_N.roll(1)
    full_softmax(F.embedding(read_N, table_VD).tanh(), table_VD, None, target_N, weight_N).backward()
    plain(F.embedding(read_N, exact_VD).tanh(), exact_VD, None, target_N, exact_N, 0.0).backward()
    assert off(table_VD.grad, exact_VD.grad) < 1e-5


def test_scores_beyond_what_an_exponential_takes_do_no_harm() -> None:
    tensors = given(60)
    loss = full_softmax(tensors[0] * 1e3, *tensors[1:], label_smoothing=0.1)  # type: ignore[arg-type]
    loss.backward()
    assert loss.isfinite() and all(tensor.grad.isfinite().all() for tensor in tensors[:3])


def test_the_path_does_not_depend_on_how_much_is_asked() -> None:
    """The same operations, a chunk each, and never more logits than a chunk's."""
    operations = []
    for count in (3, 300):
        with Recorded() as recorded:
            full_softmax(*given(count), label_smoothing=0.1).backward()  # type: ignore[arg-type]
        operations.append({name for name, _ in recorded.calls})
        assert recorded.largest <= 50 * NUM_ITEMS
    assert operations[0] == operations[1]


def test_without_gradients_none_are_made() -> None:
    with torch.no_grad(), Recorded() as recorded:
        full_softmax(*given(60, bias=False))  # type: ignore[arg-type]
    products = [name for name, _ in recorded.calls if name in PRODUCTS]
    assert len(products) == 2, "the scores of two chunks"


@pytest.mark.parametrize("told_by", ["autocast", "states"])
def test_products_are_bfloat16_and_sums_float32(told_by: str) -> None:
    tensors, exact = given(300), given(300, dtype=torch.float64)
    states = tensors[0].bfloat16() if told_by == "states" else tensors[0]
    with torch.autocast("cpu", torch.bfloat16, enabled=told_by == "autocast"), Recorded() as recorded:
        loss = full_softmax(states, *tensors[1:], label_smoothing=0.1)  # type: ignore[arg-type]
    assert recorded.types(*PRODUCTS) == {torch.bfloat16}
    assert recorded.types("amax", "exp_", "log", "sum", "sub_", "addmv_", "dot") == {torch.float32}
    assert loss.dtype == torch.float32
    loss.backward()
    right = plain(*exact, 0.1)  # type: ignore[arg-type]
    right.backward()
    assert off(loss, right) < 3e-3
    assert all(off(one.grad, other.grad) < 1e-2 for one, other in zip(tensors[:3], exact[:3], strict=True))


def test_a_sampled_loss_under_autocast_has_bfloat16_products_and_float32_sums() -> None:
    model = model_of("sasrec", loss={"name": "sampled_softmax", "negatives": {"count": 16}}).train()
    batch = make_schedule(model, random_sessions(100, 50), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    seen: list[torch.dtype] = []
    loss_of: Callable[..., Tensor] = model.next_item.loss_of
    model.next_item.loss_of = lambda *scores: seen.extend(s.dtype for s in scores[:2]) or loss_of(*scores)  # type: ignore
    with torch.autocast("cpu", torch.bfloat16):
        h_BLD = model.encode(batch)
        with Recorded() as recorded:
            loss = model.next_item.loss(h_BLD, batch, model.inputs.items)
    assert recorded.types("bmm") == {torch.bfloat16} and recorded.types("logsumexp") == {torch.float32}
    assert seen == [torch.float32, torch.float32] and loss.dtype == torch.float32


@pytest.mark.parametrize(("bias", "smoothing", "half"), [(True, 0.1, False), (False, 0.0, True), (True, 0.0, True)])
def test_compiled_it_has_the_same_gradients(bias: bool, smoothing: float, half: bool) -> None:
    """As one operation, whatever the compiler makes of the rest."""

    def of(loss: Callable[..., Tensor]) -> list[Tensor]:
        tensors = given(317, bias=bias)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            value = 3 * loss(*tensors, label_smoothing=smoothing)
        value.backward()
        return [
            value.detach(),
            *[tensor.grad for tensor in tensors[:3] if tensor is not None and tensor.grad is not None],
        ]

    torch.compiler.reset()
    compiled = of(torch.compile(full_softmax, backend="aot_eager", fullgraph=True, dynamic=False))
    torch.testing.assert_close(compiled, of(full_softmax), rtol=0, atol=0)
    assert len(compiled) == (4 if bias else 3)
