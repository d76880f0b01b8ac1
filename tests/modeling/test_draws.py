import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest

from modeling.draws import dropout


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4, 0.9, 0.99999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_share_of_the_elements_is_dropped_and_the_rest_makes_up_for_it(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    x = torch.ones(200_003, dtype=dtype, requires_grad=True)
    y = dropout(x, rate, True)
    dropped = int((y == 0).sum())
    assert binomtest(dropped, len(x), rate).pvalue > 1e-4
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - round(rate * 65_536) / 65_536)))
    y.sum().backward()
    assert torch.equal(x.grad, y) and y.dtype == dtype


def test_each_element_is_dropped_on_its_own_at_any_place_of_a_word() -> None:
    torch.manual_seed(3)
    dropped = torch.stack([dropout(torch.ones(30), 0.3, True) == 0 for _ in range(20_000)]).double()
    error = (0.3 * 0.7 / len(dropped)) ** 0.5
    assert ((dropped.mean(0) - 0.3).abs() < 4.5 * error).all()
    together = torch.corrcoef(dropped.T).fill_diagonal_(0)
    assert together.abs().max() < 5 / len(dropped) ** 0.5


@pytest.mark.parametrize("shape", [(3, 5, 7), (1,), (0, 4)])
def test_the_same_state_of_the_generator_drops_the_same(shape: tuple[int, ...]) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append((dropout(torch.ones(shape), 0.4, True), torch.get_rng_state()))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert results[0][0].shape == shape


def test_one_integer_is_drawn_for_four_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], torch.randint
    monkeypatch.setattr(torch, "randint", lambda low, high, size: drawn.append(size) or draw(low, high, size))
    dropout(torch.ones(10, 41), 0.4, True)
    assert drawn == [(103,)]


def test_an_order_of_elements_other_than_that_of_memory_is_left_to_torch() -> None:
    x = torch.arange(600.0).reshape(20, 30).T
    torch.manual_seed(3)
    ours = dropout(x, 0.4, True)
    torch.manual_seed(3)
    assert torch.equal(ours, F.dropout(x, 0.4, True))


def test_a_rate_of_one_drops_all_and_one_that_is_none_is_refused() -> None:
    assert not dropout(torch.ones(200_003), 1.0, True).any()
    for rate in (-0.1, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            dropout(torch.ones(8), rate, True)


def test_nothing_is_dropped_or_drawn_out_of_training() -> None:
    x, before = torch.ones(50), torch.get_rng_state()
    assert dropout(x, 0.4, False) is x or torch.equal(dropout(x, 0.4, False), x)
    assert torch.equal(dropout(x, 0.0, True), x)
    assert torch.equal(torch.get_rng_state(), before)
