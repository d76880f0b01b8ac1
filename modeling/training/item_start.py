"""Vectors of item ids that begin near those of the items they occur with, before the first step.

A table that begins at random says nothing, and a model of few events an item has learned it by heart before it says much. What
items occur with is known from the start: positive pointwise mutual information, factorised, is what skip-gram learns (Levy and
Goldberg, NeurIPS 2014; of items: item2vec, arXiv:1603.04259).

    c[i, j]     sum over pairs of events of i and j within WINDOW places of a session of 1 / places apart
    m[i, j]     max(0, log(c[i, j] / (c[i] p[j]))), with p[j] = c[j]^SMOOTHING / sum(c^SMOOTHING)
    m           about U S V', the E largest of S; an item begins at its row of U S^1/2, at the length of a random one

Of many items the factors are those of random projections (Halko, Martinsson and Tropp, SIAM Review 53, 2011), which take a
fourth of the time, and share 57 % of the ten items nearest to one with the exact ones.

V item ids, E width of item vectors.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.linalg import svd
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from modeling.model import SequenceModel
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID

WINDOW = 5
SMOOTHING = 0.75  # of contexts, so that rare ones do not seem to say the most (word2vec's)
STD = 0.05  # of the numbers of a vector: a length of 0.4 at width 64
NOISE = 1e-6  # of the longest vector: less is what rounding leaves of zero
RESTARTS = 0  # the seed of where ARPACK begins anew
EXACT_BELOW = 50_000  # items: the exact factors of 100,000 take 56 CPU seconds
POWERS, ITERATIONS = 4, 30  # of all vectors at once: where there are many items, and where ARPACK fails
SPARE = 16  # vectors iterated besides those that are wanted
LEAST_ITEMS = 8  # more than an item needs to occur with any


def begin_near_neighbours(model: SequenceModel, sessions: Sessions) -> int:
    """Give the items that occur with any in training their vectors; how many there are. All further ids stay as they are.

    So do items that the largest axes say nothing of, as where more shelves than axes share no session.

    The axes are turned at random: as they come, a few hold most of all vectors, and a norm over a vector sees little else.
    """
    table_VE = model.inputs.items.table_VE
    information = positive_information(sessions, len(table_VE))
    item_I = np.flatnonzero(np.diff(information.indptr))
    if len(item_I) < LEAST_ITEMS:
        return 0
    vectors = torch.from_numpy(factors(information[item_I][:, item_I], table_VE.shape[1]))
    length_I = vectors.norm(dim=1)
    said_I = length_I > NOISE * length_I.max()
    item_I, vectors = item_I[said_I.numpy()], vectors[said_I].to(table_VE.dtype)
    vectors = vectors @ torch.linalg.qr(torch.randn(table_VE.shape[1], table_VE.shape[1]))[0]
    length = STD * table_VE.shape[1] ** 0.5
    with torch.no_grad():
        table_VE[torch.from_numpy(item_I)] = torch.nn.functional.normalize(vectors, dim=1) * length
    return len(item_I)


def positive_information(sessions: Sessions, num_ids: int) -> sparse.csr_array:
    """m, [V, V]; of ids that are no items nothing."""
    session_E, event_E = sessions.event_index()
    item_E = sessions.items[event_E]
    together = sparse.csr_array((num_ids, num_ids), dtype=np.float64)
    for apart in range(1, WINDOW + 1):
        left, right = item_E[:-apart], item_E[apart:]
        pair = (session_E[apart:] == session_E[:-apart]) & (left >= FIRST_ID) & (right >= FIRST_ID) & (left != right)
        index = (left[pair].numpy(), right[pair].numpy())
        together += sparse.csr_array((np.full(len(index[0]), 1 / apart), index), shape=(num_ids, num_ids))
    together = (together + together.T).tocoo()
    total_V = np.asarray(together.sum(axis=1)).ravel()
    share_V = total_V**SMOOTHING
    share_V /= max(share_V.sum(), 1e-12)
    row, column = together.coords
    value = np.log(together.data / (total_V[row] * share_V[column]))
    return sparse.csr_array((value * (value > 0), (row, column)), shape=(num_ids, num_ids))


def factors(matrix: sparse.csr_array, width: int) -> np.ndarray:
    """U S^1/2 of the `width` largest singular values, [I, width] in float64; zeros where a small matrix has fewer.

    Of equal singular values, as of pairs that occur with each other alone, ARPACK finds one from where it starts, and begins
    anew with drawn numbers for each further one. `svds` draws them otherwise in every run, so it is not asked. Where ARPACK
    fails all the same, or would take too long, all vectors are iterated at once.
    """
    count = min(width, min(matrix.shape) - 1)
    if matrix.shape[0] >= EXACT_BELOW:
        right = _at_once(matrix, count, POWERS)
    else:
        gram = LinearOperator(matrix.shape, matvec=lambda x: matrix.T @ (matrix @ x), dtype=matrix.dtype)
        try:
            _, right = eigsh(gram, k=count, v0=np.ones(matrix.shape[0]), rng=np.random.default_rng(RESTARTS))
            right = np.linalg.qr(right)[0]
        except ArpackError:
            right = _at_once(matrix, count, ITERATIONS)
    left, values, _ = svd(matrix @ right, full_matrices=False, overwrite_a=True)
    vectors = (left * np.sqrt(np.maximum(values, 0)))[:, ::-1]
    return np.pad(vectors, ((0, 0), (0, width - count)))


def _at_once(matrix: sparse.csr_array, count: int, iterations: int) -> np.ndarray:
    """An orthonormal basis of about the `count` largest singular values' right vectors, [I, count]."""
    basis = np.random.default_rng(RESTARTS).standard_normal((matrix.shape[1], min(count + SPARE, matrix.shape[1])))
    for _ in range(iterations):
        basis = np.linalg.qr(matrix.T @ (matrix @ basis))[0]
    turned = svd(matrix @ basis, full_matrices=False)[2]
    return basis @ turned[:count].T
