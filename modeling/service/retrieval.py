"""Lists as a search for the nearest vectors: what a vector index, another language or a GPU elsewhere needs of a model.

The score of an item is the inner product of a history's query vector and the item's. Where the model has a bias per item, that
is one more number of the item's vector, and the query's is 1: an index knows nothing of biases.

N histories, E width of vectors, U items that may be recommended.
"""

from __future__ import annotations

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.service.recommender import Recommender
from modeling.sessions import Sessions
from modeling.vocabularies import raw_column
from schemas.columns import FIRST_ID
from schemas.errors import InputError

ITEM, ITEM_INDEX, VECTOR = "item", "item_index", "vector"


def item_vectors(recommender: Recommender) -> pl.DataFrame:
    """A row for each item that may be recommended: `item` (raw id), `item_index` (encoded id), `vector` (array of float32).

    Raises:
        InputError: for a model without the head next_item.
    """
    scorer = recommender.scorer
    column_U = scorer.rankable_V.nonzero().squeeze(1)
    vector_UE = scorer.items_VE[column_U]
    if scorer.bias_V is not None:
        vector_UE = torch.cat([vector_UE, scorer.bias_V[column_U].detach().float()[:, None]], 1)
    ids = column_U + FIRST_ID
    return pl.DataFrame(
        {
            ITEM: raw_column(recommender.items, ids.cpu()),
            ITEM_INDEX: pl.Series(ids.cpu().numpy(), dtype=pl.Int64),
            VECTOR: pl.Series(vector_UE.detach().cpu().numpy(), dtype=pl.Array(pl.Float32, vector_UE.shape[1])),
        }
    )


def query_vectors(recommender: Recommender, histories: Sessions) -> Tensor:
    """What items are compared with after each history, float32 of shape [N, E], on the CPU.

    Raises:
        InputError: for a model without the head next_item, and for an empty history.
    """
    if bool((histories.places <= 0).any()):
        raise InputError("A history without an item has no vector: leave it out.")
    query_NE = recommender.scorer.queries(histories.to(recommender.device)).cpu()
    return query_NE if recommender.scorer.bias_V is None else F.pad(query_NE, (0, 1), value=1.0)
