"""What lists in bulk cost next to the bare matrix product and RecTools' ranker."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from ranking_ways import product, tile_sizes
from service_running import EVENTS, folder, write_model

from modeling.service.bulk import Histories, write_lists
from modeling.service.recommender import Recommender
from modeling.sessions import Sessions
from schemas.artifacts import Artifacts
from schemas.columns import FIRST_ID

RECTOOLS = """
import sys, time
import numpy as np, torch
from rectools.models.rank import Distance, TorchRanker
torch.set_num_threads(1)
queries, items = (torch.from_numpy(np.load(f"{sys.argv[1]}/{name}.npy")) for name in ("queries", "items"))
ranker = TorchRanker(distance=Distance.DOT, device="cpu", subjects_factors=queries, objects_factors=items)
began = time.process_time()
ranker.rank(np.arange(len(queries)), k=int(sys.argv[2]))
print(time.process_time() - began)
"""


def bulk(num_items: int, count: int, rectools: str | None, k: int = 20) -> dict[str, Any]:
    """CPU seconds of lists in bulk, from encoded sessions to Parquet, next to those of the bare matrix product.

    `product` multiplies the same vectors in the fastest of several sizes of tiles, and does no more; `body` is what makes the
    queries; `lists` is all of `write_lists`; `rectools` is RecTools' ranker on these vectors, in an environment whose Python is
    given. One thread each.
    """
    with folder() as root:
        artifacts = Artifacts(root / "root")
        recommender = Recommender(artifacts.root / write_model(artifacts, num_items, 0), "cpu")
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(FIRST_ID, FIRST_ID + num_items, (count * EVENTS,), generator=draw, dtype=torch.int32)
        events = {"item_id": ids, "action": torch.full_like(ids, FIRST_ID), "hour": torch.full_like(ids, FIRST_ID)}
        starts = torch.arange(count) * EVENTS
        sessions = Sessions(events, starts, torch.full_like(starts, EVENTS), torch.zeros_like(starts))
        scorer = recommender.scorer
        seconds: dict[str, float] = {}
        with torch.no_grad():
            began = time.process_time()
            queries = torch.cat([scorer.queries(sessions.select(part)) for part in torch.arange(count).split(1024)])
            seconds["body"] = time.process_time() - began
            seconds["product"] = min(_seconds(product(queries, scorer.items_VE, *tile)) for tile in tile_sizes("cpu"))
        batches = iter([Histories(sessions, pl.DataFrame({"user_id": pl.int_range(count, eager=True)}))])
        began = time.process_time()
        write_lists(recommender, batches, root / "out", k, filter_seen=False)
        seconds["lists"] = time.process_time() - began
        if rectools:
            np.save(root / "queries.npy", queries.numpy())
            np.save(root / "items.npy", scorer.items_VE.detach().numpy())
            command = [rectools, "-c", RECTOOLS, str(root), str(k)]
            seconds["rectools"] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    shares = {
        "product / (lists - body)": seconds["product"] / (seconds["lists"] - seconds["body"]),
        "(product + body) / lists": (seconds["product"] + seconds["body"]) / seconds["lists"],
    }
    if rectools:
        shares["product / rectools"] = seconds["product"] / seconds["rectools"]
    about = {"items": num_items, "histories": count, "k": k}
    return (
        about
        | {f"{name}_cpu_s": round(value, 2) for name, value in seconds.items()}
        | {name: round(value, 3) for name, value in shares.items()}
    )


def _seconds(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began
