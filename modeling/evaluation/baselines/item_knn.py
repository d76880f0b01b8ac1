"""Item k-NN: items that share sessions with those of the history (Deshpande and Karypis, TOIS 22, 2004).

similarity(i, j) = c_ij / sqrt(c_i c_j) * c_ij / (c_ij + shrinkage), with c_i the sessions that hold i and c_ij those that hold
both; the second factor is Bell and Koren's shrinkage (ICDM 2007), so that pairs seen once do not look alike by chance.
score(i) = sum over the different items j of the history of decay^place * similarity(i, j), with place 0 of the last event, if i
is one of the 100 items most similar to j. Of a training session the 100 latest events count, and similarities are made in
blocks of items, so that memory does not grow with their pairs. Items without a score follow, most popular on the newest day
first.
"""

import itertools

import numpy as np
import scipy.sparse as sparse
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline, Setting
from modeling.sessions import Sessions

NEIGHBOURS = 100
LONGEST = 100  # events of a session whose pairs are counted: pairs grow with its square
BLOCK = 2048  # items whose similarities are made at a time


class ItemKNN(Baseline):
    """score(item) = sum over the history of cosine(item, history item), shrunk; newer events count more."""

    grid = tuple(
        {"shrinkage": shrinkage, "decay": decay}
        for shrinkage, decay in itertools.product((10.0, 0.0, 100.0), (0.8, 0.4))
    )

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        self.seen = self.incidence(train.most_recent(LONGEST)).tocsc()
        self.newest_V = self.popularity(last_day)
        self.similar_by: dict[float, sparse.csr_array] = {}

    def use(self, setting: Setting) -> None:
        self.setting = setting
        if (shrinkage := setting["shrinkage"]) not in self.similar_by:
            self.similar_by[shrinkage] = self._similar(shrinkage)
        self.similar = self.similar_by[shrinkage]

    def _similar(self, shrinkage: float) -> sparse.csr_array:
        """The similarities of each item to its nearest, [V, V]."""
        size = np.asarray(self.seen.sum(axis=0), dtype=np.float64)
        scale = 1 / np.sqrt(np.maximum(size, 1))
        by_session = self.seen.tocsr()
        blocks = []
        for first in range(0, self.num_items, BLOCK):
            together = (self.seen[:, first : first + BLOCK].T.tocsr() @ by_session).tocoo()
            row, column, count = together.row + first, together.col, together.data.astype(np.float64)
            data = np.where(row == column, 0, count * scale[row] * scale[column] * count / (count + shrinkage))
            part = sparse.csr_array((data, (together.row, column)), shape=together.shape)
            part.eliminate_zeros()
            blocks.append(_strongest(part, NEIGHBOURS))
        return sparse.csr_array(sparse.vstack(blocks, format="csr")) if blocks else sparse.csr_array((0, 0))

    def queries(self, histories: Sessions) -> Tensor:
        session, column, place = self.latest(histories)
        weights = (self.setting["decay"] ** place, (session, column))
        scores = sparse.csr_array(weights, shape=(len(histories), self.num_items)) @ self.similar
        return self.back_off(scores.toarray(), self.newest_V)


def _strongest(matrix: sparse.csr_array, count: int) -> sparse.csr_array:
    """Only the `count` largest entries of each row; of equals the lower column."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    kept = order[np.arange(len(order)) - matrix.indptr[row[order]] < count]
    return sparse.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)
