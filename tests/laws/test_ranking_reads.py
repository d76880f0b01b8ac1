"""How often ranks and lists make the host wait for the device: a fixed few times a chunk of histories, however many tiles.

Counted on the pretended device, without what the model's own states need.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from modeling.evaluation import fused, lists, ranking
from modeling.evaluation.ranking import ranks, top_k
from modeling.scoring import ModelScorer
from modeling.splits import Cases
from tests.conftest import model_of, random_sessions
from tests.modeling.evaluation import plain_kernels
from tests.second_device import pretended_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts are taken on the pretended device")
NUM_ITEMS, CHUNK = 3000, 20


def reads(
    work: Callable[[ModelScorer, Cases], object], histories: int, monkeypatch: pytest.MonkeyPatch, tile: int
) -> int:
    """Reads of ranks or lists in chunks of twenty histories, with tiles of so many items."""
    monkeypatch.setitem(ranking.TILE, "cuda", tile)
    monkeypatch.setitem(lists.TILE, "cuda", tile)
    monkeypatch.setattr(fused, "TILE", tile // 32 * 32)
    monkeypatch.setattr(fused, "tile_of", lambda rows: tile // 32 * 32)
    with pretended_cuda() as device:
        scorer = ModelScorer(model_of("sasrec", num_items=NUM_ITEMS).to("cuda"))
        scorer.chunk = CHUNK
        queries_NE = scorer.queries(random_sessions(histories, NUM_ITEMS, 1).to("cuda"))
        monkeypatch.setattr(scorer, "queries", lambda some: queries_NE[some.end % histories])
        sessions = random_sessions(histories, NUM_ITEMS, 3).to("cuda")
        cases = Cases(sessions.drop_last(1), sessions.item_from_end(0))
        device.reads.clear()
        work(scorer, cases)
        return device.reads.total()


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("what", ["ranks", "lists"])
def test_reads_are_a_fixed_few_a_chunk(
    what: str, filter_seen: bool, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels:  # torch in the place of Triton
        monkeypatch.setattr(fused, "takes", lambda device: True)
        monkeypatch.setattr(fused, "_on", lambda device: nullcontext())
        monkeypatch.setattr("modeling.evaluation.kernels", plain_kernels, raising=False)
        monkeypatch.setitem(sys.modules, "modeling.evaluation.kernels", plain_kernels)

    def work(scorer: ModelScorer, cases: Cases) -> object:
        if what == "ranks":
            return ranks(scorer, cases, filter_seen=filter_seen)
        return top_k(scorer, cases.history, 5, filter_seen=filter_seen)

    few_tiles, many_tiles = (reads(work, 40, monkeypatch, tile) for tile in (3000, 96))
    assert few_tiles == many_tiles
    more_chunks = reads(work, 120, monkeypatch, 96)
    assert (more_chunks - many_tiles) / 4 <= 6, "for one chunk more"
