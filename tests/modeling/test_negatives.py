"""What is drawn, how often, and what it does to a loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from torch import Tensor

from modeling.config import NegativesConfig
from modeling.losses._negatives import draw
from modeling.losses.full_softmax import full_softmax
from modeling.losses.sampled_softmax import sampled_softmax
from modeling.training.fit import set_popularity
from schemas.columns import FIRST_ID
from schemas.errors import InputError
from tests.conftest import asking, model_of, sessions_of

POPULARITY_V = torch.tensor([40.0, 0.0, 25.0, 20.0, 10.0, 5.0])  # an item that training never saw
TARGET_N = torch.tensor([0, 0, 0, 0, 2, 2, 5, 5, 5, 3])
NUM_ITEMS = len(POPULARITY_V)
UNIFORM_V = torch.full((NUM_ITEMS,), 1 / NUM_ITEMS)
SHARES = {
    "uniform": UNIFORM_V,
    "popularity": POPULARITY_V / POPULARITY_V.sum(),
    "in_batch": torch.tensor([0.4, 0.0, 0.2, 0.1, 0.0, 0.3]),
}


def unlikely(column: Tensor, share_V: Tensor) -> bool:
    """Whether draws do not follow these shares (chi-square, one in ten thousand), or hold what must not be drawn."""
    found_V = torch.bincount(column.flatten(), minlength=NUM_ITEMS)
    possible_V = share_V > 0
    if found_V[~possible_V].sum():
        return True
    expected_V = share_V[possible_V].double() / share_V.double().sum() * int(found_V.sum())
    return bool(chisquare(found_V[possible_V].double(), expected_V).pvalue < 1e-4)


@pytest.mark.parametrize("mixed", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("source", ["popularity", "in_batch"])
def test_items_are_drawn_as_often_as_their_source_says(source: str, mixed: float) -> None:
    torch.manual_seed(0)
    config = NegativesConfig(source=source, mixed=mixed, count=4000, group=2)
    column_GK, logq_GK = draw(config, TARGET_N, POPULARITY_V)
    assert column_GK.shape == (5, 4000) and logq_GK is None
    assert not unlikely(column_GK, mixed * UNIFORM_V + (1 - mixed) * SHARES[source])
    assert unlikely(column_GK, torch.full((NUM_ITEMS,), 0.7).index_fill(0, torch.tensor([0]), 1.0))


def test_any_item_alike_is_the_default() -> None:
    torch.manual_seed(0)
    column_GK, _ = draw(NegativesConfig(count=4000, group=2), TARGET_N, POPULARITY_V)
    assert not unlikely(column_GK, UNIFORM_V)


def test_groups_are_drawn_independently() -> None:
    torch.manual_seed(0)
    for source in ("uniform", "popularity", "in_batch"):
        one_K, other_K = draw(NegativesConfig(source=source, count=8000, group=5), TARGET_N, POPULARITY_V)[0]
        table_VV = torch.zeros(NUM_ITEMS, NUM_ITEMS).index_put_((one_K, other_K), torch.ones(8000), accumulate=True)
        table_VV = table_VV[table_VV.sum(1) > 0][:, table_VV.sum(0) > 0]
        assert chi2_contingency(table_VV).pvalue > 1e-4


@pytest.mark.parametrize(("count", "group", "groups"), [(1, 1, 10), (7, 3, 4), (7, 10, 1), (7, 64, 1)])
def test_there_is_a_set_for_each_group_also_for_a_short_last_one(count: int, group: int, groups: int) -> None:
    config = NegativesConfig(count=count, group=group, corrected=True)
    column_GK, logq_GK = draw(config, TARGET_N, POPULARITY_V)
    assert logq_GK is not None
    assert column_GK.shape == logq_GK.shape == (groups, count)


def test_the_same_seed_draws_the_same_items() -> None:
    for source in ("uniform", "popularity", "in_batch"):
        config, found = NegativesConfig(source=source, mixed=0.0, count=64, group=2), []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(draw(config, TARGET_N, POPULARITY_V)[0])
        assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def popular_targets(count: int) -> Tensor:
    """Targets as a batch of training has them."""
    return torch.multinomial(POPULARITY_V, count, replacement=True)


CORRECTED = [
    NegativesConfig(count=8, group=4, corrected=True),
    NegativesConfig(source="popularity", count=8, group=4, corrected=True),
    NegativesConfig(source="popularity", mixed=0.4, count=8, group=4, corrected=True),
    NegativesConfig(source="in_batch", count=8, group=4, corrected=True),
    NegativesConfig(source="in_batch", mixed=0.4, count=8, group=4, corrected=True),
]
every_correction = pytest.mark.parametrize("config", CORRECTED, ids=lambda one: f"{one.source}-{one.mixed}")


@every_correction
def test_logq_is_the_log_of_how_often_an_item_is_drawn(config: NegativesConfig) -> None:
    torch.manual_seed(0)
    told_V, found_V, groups = torch.zeros(NUM_ITEMS), torch.zeros(NUM_ITEMS), 0
    for _ in range(4000):
        column_GK, logq_GK = draw(config, popular_targets(12), POPULARITY_V)
        assert logq_GK is not None
        told_V[column_GK] = logq_GK.exp()
        found_V += torch.bincount(column_GK.flatten(), minlength=NUM_ITEMS)
        groups += len(column_GK)
    torch.testing.assert_close(found_V / groups, told_V, rtol=0.08, atol=0)
    assert told_V.sum() == pytest.approx(config.count, rel=1e-4)


@every_correction
def test_corrected_sums_of_exponentials_are_unbiased(config: NegativesConfig) -> None:
    torch.manual_seed(0)
    score_V = torch.tensor([1.0, 0.5, -1.0, 2.0, 0.0, 1.5])
    possible_V = (POPULARITY_V > 0) | (config.source == "uniform") | (config.mixed > 0)
    total = score_V[possible_V].exp().sum()
    found = []
    for _ in range(3000):
        column_GK, logq_GK = draw(config, popular_targets(12), POPULARITY_V)
        found.append((score_V[column_GK] - logq_GK).exp().sum(1).mean())
    of_batches = torch.stack(found)
    error = of_batches.std() / len(of_batches) ** 0.5
    assert abs(of_batches.mean() - total) < 4 * error < 0.1 * total


@pytest.mark.parametrize(("source", "mixed"), [("uniform", 0.0), ("popularity", 0.0), ("popularity", 0.5)])
def test_corrected_sampled_softmax_tends_to_the_full_one(source: str, mixed: float) -> None:
    """A quarter of the error for each sixteenfold number of negatives; without correction it does not even come near."""
    torch.manual_seed(0)
    num_items = 400
    items_VD, h_ND = torch.randn(num_items, 8), 0.5 * torch.randn(96, 8)
    popularity_V = (torch.arange(num_items) % 17 + 1).float()
    target_N = torch.randint(num_items, (96,))
    one_1 = torch.ones(1)
    plain_N = torch.stack(
        [full_softmax(h_ND[n : n + 1], items_VD, None, target_N[n : n + 1], one_1) for n in range(96)]
    )

    def losses_of(count: int, *, corrected: bool = True) -> Tensor:
        config = NegativesConfig(source=source, mixed=mixed, count=count, group=1, corrected=corrected)
        column_NK, logq_NK = draw(config, target_N, popularity_V)
        score_NK = (h_ND @ items_VD.T).gather(1, column_NK)
        score_NK = score_NK - logq_NK if logq_NK is not None else score_NK
        score_NK = score_NK.masked_fill(column_NK == target_N.unsqueeze(1), -torch.inf)
        positive_N = (h_ND * items_VD[target_N]).sum(1)
        return sampled_softmax(positive_N, score_NK, num_items)

    few, more, many = ((losses_of(count) - plain_N).square().mean().sqrt() for count in (128, 2048, 32_768))
    assert 2.5 < few / more < 6.5 and 2.5 < more / many < 6.5
    assert many < 0.03
    assert (losses_of(32_768, corrected=False) - plain_N).abs().mean() > 1


def scores_of(model_loss: dict[str, object], targets: list[int], num_items: int, **head: object) -> tuple:
    """What the head of a model hands to its loss for random states, and the columns drawn for it."""
    model = model_of("sasrec", num_items=num_items, loss=model_loss, heads={"next_item": head})
    if model.next_item.bias_V is not None:
        torch.nn.init.normal_(model.next_item.bias_V)
    h_BLD = torch.randn(1, len(targets), 16, requires_grad=True)
    batch = asking(torch.tensor(targets) + FIRST_ID)
    told: list[tuple[Tensor, Tensor]] = []
    loss_of = model.next_item.loss_of
    model.next_item.loss_of = lambda *given: told.append(given[:2]) or loss_of(*given)  # type: ignore[assignment]
    torch.manual_seed(5)
    loss = model.next_item.loss(h_BLD, batch, model.inputs.items)
    torch.manual_seed(5)
    drawn = draw(model.next_item.negatives, batch.target_N - FIRST_ID, model.next_item.popularity_V)
    return model, h_BLD, loss, *told[0], *drawn


@pytest.mark.parametrize("head", [{}, {"table": "separate", "bias": True}, {"cosine": True, "temperature": 0.1}])
def test_each_prediction_is_compared_with_its_own_group(head: dict[str, object]) -> None:
    """Scores are those of the catalogue at the group's columns, less logQ; a negative that is the target is -inf."""
    targets = [3, 3, 0, 7, 9, 2, 2]
    loss = {"name": "sampled_softmax", "negatives": {"count": 9, "group": 3, "corrected": True}}
    model, h_BLD, _, positive_N, negative_NK, column_GK, logq_GK = scores_of(loss, targets, 10, **head)
    score_NV = model.next_item.query(h_BLD[0]) @ model.next_item.catalogue(model.inputs.items).T
    if model.next_item.bias_V is not None:
        score_NV = score_NV + model.next_item.bias_V
    for n, target in enumerate(targets):
        torch.testing.assert_close(positive_N[n], score_NV[n, target])
        expected_K = score_NV[n, column_GK[n // 3]] - logq_GK[n // 3]
        expected_K[column_GK[n // 3] == target] = -torch.inf
        torch.testing.assert_close(negative_NK[n], expected_K)
    assert (negative_NK == -torch.inf).any() and (negative_NK > -torch.inf).any()


@pytest.mark.parametrize("name", ["sampled_softmax", "bce", "gbce", "bpr", "bpr_max", "top1_max"])
@pytest.mark.parametrize(
    ("source", "targets", "num_items"),
    [("in_batch", [4], 10), ("in_batch", [4, 4, 4], 10), ("uniform", [0, 0], 1), ("popularity", [0, 0], 1)],
)
def test_where_nothing_is_left_to_compare_with_there_is_no_nan(
    name: str, source: str, targets: list[int], num_items: int
) -> None:
    """One target in the batch, or one item in the catalogue."""
    loss = {"name": name, "negatives": {"source": source, "count": 5}}
    _, h_BLD, found, _, negative_NK, _, _ = scores_of(loss, targets, num_items)
    assert (negative_NK == -torch.inf).all()
    found.backward()
    assert found.isfinite() and h_BLD.grad.isfinite().all()
    if "bce" not in name:
        assert found == 0 and (h_BLD.grad == 0).all()


def test_memory_holds_scores_of_predictions_and_vectors_of_groups_only() -> None:
    """Of 64 predictions in 4 groups with 50 negatives no tensor holds more than a vector each: none has 64 x 50."""
    largest = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, operation: Callable, types: object, args: tuple = (), kwargs: dict | None = None):
            found = operation(*args, **(kwargs or {}))
            largest.extend(
                one.numel()
                for one in (found if isinstance(found, tuple | list) else [found])
                if isinstance(one, Tensor)
            )
            return found

    loss = {"name": "sampled_softmax", "negatives": {"count": 50, "group": 16, "corrected": True}}
    model = model_of("sasrec", num_items=30, loss=loss, heads={"next_item": {"bias": True}})
    batch = asking(torch.randint(FIRST_ID, FIRST_ID + 30, (64,)))
    with Largest():
        model.next_item.loss(torch.randn(1, 64, 16, requires_grad=True), batch, model.inputs.items).backward()
    assert max(largest) == max(64 * 50, (64 + 4 * 50) * 16)


def test_what_training_does_not_hold_is_no_uniform_negative() -> None:
    """And does not count as an item that might have been drawn."""
    torch.manual_seed(0)
    held_U = torch.tensor([0, 2, 3, 5])
    config = NegativesConfig(source="uniform", count=2000, group=2, corrected=True)
    column_GK, logq_GK = draw(config, TARGET_N, POPULARITY_V, None, held_U)
    assert not unlikely(column_GK, torch.zeros(NUM_ITEMS).index_fill(0, held_U, 0.25))
    assert torch.allclose(logq_GK.exp(), torch.tensor(500.0))
    model = model_of("sasrec", num_items=4, loss={"name": "gbce", "negatives": {"count": 8}})
    set_popularity(model.next_item, sessions_of([[3, 5, 5]]), sessions_of([[3]]))
    assert model.next_item.uniform_U.tolist() == [0, 2]
    batch = model.training_batch(sessions_of([[3, 5, 5]]), torch.Generator().manual_seed(0))
    given: list[int] = []
    model.next_item.loss_of = lambda positive_N, _, number: given.append(number) or positive_N  # type: ignore
    model(batch).backward()
    assert given == [2]
    assert not model.inputs.items.table_VE.grad[[FIRST_ID + 1, FIRST_ID + 3]].any()


def test_popularity_is_that_of_training() -> None:
    model = model_of("sasrec", num_items=4)
    sessions = sessions_of([[3, 3, 5], [4, 3, 2, 1]])
    set_popularity(model.next_item, sessions, sessions)
    assert model.next_item.popularity_V.tolist() == [3, 1, 1, 0]


def test_a_uniform_share_of_uniform_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="mixed"):
        NegativesConfig(source="uniform", mixed=0.5)


def test_logq_is_for_sampled_softmax_only() -> None:
    with pytest.raises(InputError, match="corrected goes with loss sampled_softmax"):
        model_of("sasrec", loss={"name": "bce", "negatives": {"corrected": True}})
