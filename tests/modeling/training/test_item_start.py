"""Items that begin near those they occur with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
import torch.nn.functional as F

from modeling.config import ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.fit import fit, set_seed
from modeling.training.item_start import EXACT_BELOW, begin_near_neighbours, factors, positive_information
from schemas.columns import FIRST_ID, UNKNOWN
from tests.conftest import schema_of, sessions_of, split_of

SETTINGS = ModelConfig.model_validate({"inputs": {"item_start": "neighbours"}, "body": {"dim": 16}})


def two_shelves(count: int = 200, size: int = 20) -> Sessions:
    """Sessions of six events, all from the lower or all from the upper half of the items."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.rand(count, size // 2, generator=generator).argsort(1)[:, :6]
    return sessions_of([[FIRST_ID + int(i) + (row % 2) * (size // 2) for i in drawn[row]] for row in range(count)])


def model_for(size: int) -> SequenceModel:
    set_seed(3)
    return SequenceModel(SETTINGS, schema_of(size))


@pytest.mark.parametrize("exact_below", [EXACT_BELOW, 20])
def test_items_of_one_shelf_begin_near_each_other(exact_below: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling.training.item_start.EXACT_BELOW", exact_below)
    monkeypatch.setattr("modeling.training.item_start.SPARE", 2)
    model = model_for(20)
    assert begin_near_neighbours(model, two_shelves()) == 20
    items = F.normalize(model.inputs.items.table_VE[FIRST_ID:].detach(), dim=1)
    cosine = items @ items.T
    same = torch.block_diag(torch.ones(10, 10), torch.ones(10, 10)).bool()
    assert cosine[same & ~torch.eye(20, dtype=torch.bool)].mean() > cosine[~same].mean() + 0.2


def test_ids_that_occur_with_none_stay_as_they_are() -> None:
    sessions = sessions_of([*([FIRST_ID + i for i in range(10)] for _ in range(3)), [UNKNOWN, FIRST_ID + 12]])
    model = model_for(14)
    before = model.inputs.items.table_VE.detach().clone()
    assert begin_near_neighbours(model, sessions) == 10
    changed = (model.inputs.items.table_VE != before).any(1)
    assert changed.nonzero().squeeze(1).tolist() == list(range(FIRST_ID, FIRST_ID + 10))


@pytest.mark.parametrize("items", [[], [FIRST_ID], [FIRST_ID, FIRST_ID + 1]])
def test_too_few_items_begin_at_random(items: list[int]) -> None:
    model = model_for(14)
    before = model.inputs.items.table_VE.detach().clone()
    assert begin_near_neighbours(model, sessions_of([items, items])) == 0
    assert torch.equal(model.inputs.items.table_VE, before)


def test_items_that_no_axis_says_anything_of_begin_at_random() -> None:
    """Forty shelves that share no session, in a table of sixteen axes."""
    shelves = [[FIRST_ID + 4 * shelf + item for item in range(4)] for shelf in range(40) for _ in range(shelf + 1)]
    model = model_for(160)
    before = model.inputs.items.table_VE.detach().clone()
    begun = begin_near_neighbours(model, sessions_of(shelves))
    table = model.inputs.items.table_VE.detach()
    changed = (table != before).any(1)
    assert 0 < begun == int(changed.sum()) < 160
    assert table[FIRST_ID:].norm(dim=1).min() > 0.05


def test_a_table_wider_than_the_catalogue() -> None:
    vectors = factors(positive_information(two_shelves(), 23)[3:, 3:], 64)
    assert vectors.shape == (20, 64)
    assert not vectors[:, 19:].any()


def test_factors_of_many_items_are_near_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty items whose information has four large axes, and noise."""
    generator = torch.Generator().manual_seed(5)
    axes = torch.randn(50, 4, generator=generator)
    noise = 0.1 * torch.randn(50, 50, generator=generator)
    matrix = sparse.csr_array((axes @ axes.T + noise + noise.T).double().numpy())
    exact = factors(matrix, 4)
    monkeypatch.setattr("modeling.training.item_start.EXACT_BELOW", 50)
    near = factors(matrix, 4)
    assert np.allclose(exact @ exact.T, near @ near.T, atol=1e-3) and not np.array_equal(exact, near)
    assert np.array_equal(near, factors(matrix, 4))


def test_information_by_hand() -> None:
    """a b c: a and b one apart, a and c two; nothing over the end of a session, nothing of an item with itself."""
    a, b, c = FIRST_ID, FIRST_ID + 1, FIRST_ID + 2
    together = positive_information(sessions_of([[a, b, c], [a, a]]), 6).toarray()
    count = torch.tensor([[0, 1, 0.5], [1, 0, 1], [0.5, 1, 0]])
    share = count.sum(1) ** 0.75 / (count.sum(1) ** 0.75).sum()
    right = (count / (count.sum(1)[:, None] * share)).log().clamp(min=0)
    assert torch.allclose(torch.tensor(together[3:, 3:]).float(), right, atol=1e-6)
    assert not together[:3].any()


def test_the_same_seed_gives_the_same_bits_and_the_setting_reaches_training(tmp_path: Path) -> None:
    sessions = two_shelves()
    one, other = (make(sessions, tmp_path / name) for name in ("one", "other"))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    at_random = make(sessions, tmp_path / "random", "random")
    assert not torch.equal(one.inputs.items.table_VE, at_random.inputs.items.table_VE)


def make(sessions: Sessions, folder: Path, item_start: str = "neighbours") -> SequenceModel:
    settings = ModelConfig.model_validate({"inputs": {"item_start": item_start}, "body": {"dim": 16}})
    config = TrainingConfig(epochs=1, tokens_per_step=256, threads=1, order="random")
    return fit(schema_of(20), split_of(sessions, sessions), settings, config, folder, lambda line: None)[0]


def triples(count: int) -> sparse.csr_array:
    """Information of items that come in threes and with nothing else: its largest singular value is there `count` times."""
    rows = [[FIRST_ID + 3 * triple + item for item in range(3)] for triple in range(count)]
    return positive_information(sessions_of(rows), FIRST_ID + 3 * count)[FIRST_ID:, FIRST_ID:]


@pytest.mark.parametrize(
    ("count", "width"),
    [(10, 8), (33, 8), (66, 32)],  # at 66 and 32 ARPACK gives up
)
def test_equal_singular_values_give_the_same_bits_again(count: int, width: int) -> None:
    """They were other ones in every run, or an error of ARPACK's."""
    matrix = triples(count)
    vectors = factors(matrix, width)
    assert np.array_equal(vectors, factors(matrix, width))
    largest = np.linalg.svd(matrix.toarray(), compute_uv=False)[:width]
    assert np.allclose((vectors**2).sum(0), largest)
