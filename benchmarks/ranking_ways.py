"""Ways to rank: ours with other sizes of tiles, all at once, the bare matrix product, RecTools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

COUNT = 20  # of a list
# Histories and items of the tiles that ranks are tried in on a GPU.
TILES = [(2048, 2048), (4096, 1024), (2048, 4096), (8192, 1024), (8192, 2048), (8192, 4096), (8192, 16384)]


def tile_sizes(device: str) -> list[tuple[int, int]]:
    """Histories and items of the tiles that the bare product is tried in."""
    if device == "cpu":
        return [(128, 1008), (512, 1024), (1024, 1024), (1024, 4096), (2048, 2048)]
    return [(8192, 16384), (8192, 8192), (4096, 4096), (2048, 60_000), (4096, 2048), (8192, 2048), (8192, 60_000)]


def variants(scorer: Any, ranks: Callable[[], object], lists: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Ranks and lists on a GPU with other tiles and chunks, and without kernels of our own."""
    from modeling.evaluation import fused

    def by(run: Callable[[], object], chunk: int | None = None, **constants: Any) -> Callable[[], object]:
        def changed() -> object:
            before = {name: getattr(fused, name) for name in constants}
            was, scorer.chunk = scorer.chunk, chunk or scorer.chunk
            try:
                for name, value in constants.items():
                    setattr(fused, name, value)
                fused.tile_of.cache_clear()
                return run()
            finally:
                scorer.chunk = was
                for name, value in before.items():
                    setattr(fused, name, value)
                fused.tile_of.cache_clear()

        return changed

    torchs_own = {"takes": lambda device: False}
    ways = {"ranks by torch": by(ranks, 8192, **torchs_own), "lists by torch": by(lists, 8192, **torchs_own)}
    for rows, tile in TILES:
        ways[f"ranks {rows}x{tile}"] = by(ranks, ROWS=rows, TILE=tile)
        ways[f"lists of {rows * tile >> 20}M"] = by(lists, ROWS=rows, TILE=tile)
    for held in (2**27, 2**28, 2**31):
        ways[f"lists holding {held >> 20}M"] = by(lists, HELD=held)
    return ways | {"ranks in chunks of 8192": by(ranks, 8192), "lists in chunks of 8192": by(lists, 8192)}


def in_one(queries_NE: Any, items_VE: Any) -> dict[str, Callable[[], object]]:
    """The ways of `ranking_in_one`, and torch's count for comparison; none without Triton."""
    try:
        from ranking_in_one import ways
    except ImportError:
        return {}
    import torch

    limit_N1 = (queries_NE * items_VE[:1]).sum(1, keepdim=True)

    def exact() -> torch.Tensor:
        parts = zip(queries_NE.split(1024), limit_N1.split(1024), strict=True)
        return torch.cat([(part @ items_VE.T > limit).sum(1) for part, limit in parts])

    return {"in one, by torch": exact, **ways(queries_NE, items_VE)}


def product(queries_NE: Any, items_VE: Any, rows: int, items: int) -> Callable[[], None]:
    """torch.mm of all tiles, into the same memory."""
    import torch

    rows, items = min(rows, len(queries_NE)), min(items, len(items_VE))
    room = queries_NE.new_empty(rows * items)

    def run() -> None:
        for part in queries_NE.split(rows):
            for tile in items_VE.split(items):
                torch.mm(part, tile.T, out=room[: len(part) * len(tile)].view(len(part), len(tile)))

    return run


def rectools(queries_NE: Any, items_VE: Any, seen_NS: Any, device: str) -> dict[str, Callable[[], object]]:
    """RecTools' rankers of dot products with the same histories filtered; none where it is not installed."""
    try:
        from rectools.models.rank import Distance, ImplicitRanker, TorchRanker
    except ImportError:
        return {}
    import numpy as np
    from scipy.sparse import csr_array, csr_matrix

    num, size = seen_NS.shape
    values, columns = np.ones(num * size, np.float32), seen_NS.flatten().numpy()
    filtered = csr_matrix(csr_array((values, columns, np.arange(num + 1) * size), shape=(num, len(items_VE))))
    rankers = {"RecTools TorchRanker": TorchRanker(Distance.DOT, device, queries_NE, items_VE)}
    if device == "cpu":
        rankers["RecTools ImplicitRanker"] = ImplicitRanker(
            Distance.DOT, queries_NE.numpy(), items_VE.numpy(), num_threads=1
        )
    return {
        name: lambda ranker=ranker: ranker.rank(np.arange(num), k=COUNT, filter_pairs_csr=filtered)
        for name, ranker in rankers.items()
    }
