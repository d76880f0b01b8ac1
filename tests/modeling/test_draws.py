import pytest
import torch
import torch.nn.functional as F

from modeling.draws import dropout


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 7), (128, 64), (1,), (0, 4)])
def test_numbers_gradients_and_generator_are_those_of_torch(
    rate: float, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    results = []
    for drop in (dropout, F.dropout):
        torch.manual_seed(3)
        x = torch.linspace(-2, 2, torch.Size(shape).numel(), dtype=dtype).reshape(shape).requires_grad_()
        y = drop(drop(x, rate, True), rate, True)
        y.sum().backward()
        results.append((y, x.grad, torch.get_rng_state()))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert results[0][0].dtype == dtype


def test_an_order_of_elements_other_than_that_of_memory_is_left_to_torch() -> None:
    x = torch.arange(600.0).reshape(20, 30).T
    torch.manual_seed(3)
    ours = dropout(x, 0.4, True)
    torch.manual_seed(3)
    assert torch.equal(ours, F.dropout(x, 0.4, True))


def test_nothing_is_dropped_or_drawn_out_of_training() -> None:
    x, before = torch.ones(50), torch.get_rng_state()
    assert dropout(x, 0.4, False) is x or torch.equal(dropout(x, 0.4, False), x)
    assert torch.equal(dropout(x, 0.0, True), x)
    assert torch.equal(torch.get_rng_state(), before)
