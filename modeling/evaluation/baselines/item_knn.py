"""Item k-NN: items that share sessions with those of the history (Deshpande and Karypis, 2004)."""

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline
from modeling.sessions import Sessions

NEIGHBOURS = 100
DAMPING = 20.0  # sessions added to both counts, so that pairs seen once do not look alike by chance


class ItemKNN(Baseline):
    """score(item) = sum over the history of cosine(item, history item), damped, over each item's 100 nearest."""

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        seen = self.incidence(train)
        together = (seen.T @ seen).tocsr()
        size = together.diagonal()
        together.setdiag(0)
        together.eliminate_zeros()
        scale = 1 / np.sqrt(size + DAMPING)
        similar = sparse.diags_array(scale) @ together @ sparse.diags_array(scale)
        self.similar = _strongest(similar.tocsr(), NEIGHBOURS)

    def queries(self, histories: Sessions) -> Tensor:
        scores = self.incidence(histories) @ self.similar
        return torch.from_numpy(scores.toarray().astype(np.float32))


def _strongest(matrix: sparse.csr_array, count: int) -> sparse.csr_array:
    """Only the `count` largest entries of each row; of equals the lower column."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    kept = order[np.arange(len(order)) - matrix.indptr[row[order]] < count]
    return sparse.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)
