"""VSTAN: V-SkNN with the decays of STAN: by age of the neighbour, and by distance within it.

STAN: Garg et al., Sequence and time aware neighborhood for session-based recommendations (SIGIR 2019); VSTAN: Ludewig et al.,
Empirical analysis of session-based recommendation algorithms (UMUAI 31, 2021), as in session-rec's `VSKNN_STAN`. With place q
of an item from the end of the history (0: the last event), n different items of a neighbour, its age and the places d of two
of its items:

    similarity = sum over the shared items of w / sqrt(sum over the history's items of w^2) / sqrt(n) * exp(-age in days / snh),
                 w = exp(-q / spw),
    position   = exp(-q / ipw), q of the latest item that the neighbour holds,
    distance   = exp(-|d(item) - d(latest shared item of the neighbour)| / inh).

The age is counted from the newest training session: the time that was asked at would scale all scores of a history alike. Of
1,000 sampled sessions the 200 nearest; snh 5 and inh 2 as session-rec has them; validation chooses spw, ipw and idf_weight.
"""

import itertools

import numpy as np

from modeling.evaluation.baselines._neighbours import Neighbours

MOST_DECAY = 60.0  # exp(-60) is still a number that float32 can add up


class VSTAN(Neighbours):
    """score(item) = sum over similar sessions, newer ones more, of its nearness there to what the history shares with them."""

    grid = tuple(
        {"sampled": 1000.0, "neighbours": 200.0, "idf_weight": idf, "spw": spw, "ipw": spw, "inh": 2.0, "snh": 5.0}
        for spw, idf in itertools.product((4.0, 1.0), (0.0, 1.0))
    )

    def item_weight(self, place_P: np.ndarray, length_P: np.ndarray) -> np.ndarray:
        return np.exp(-place_P / self.setting["spw"])

    def similarity(self, shared_C: np.ndarray, weight_P: np.ndarray, pair: tuple[np.ndarray, ...]) -> np.ndarray:
        history_P, history_C, session_C = pair
        norm_N = np.sqrt(np.bincount(history_P, weight_P**2))
        decay_S = np.exp(-np.minimum(self.days_S / self.setting["snh"], MOST_DECAY)) / np.sqrt(
            np.maximum(self.num_items_S, 1)
        )
        similarity_C: np.ndarray = shared_C / norm_N[history_C] * decay_S[session_C]
        return similarity_C

    def position(self, place_K: np.ndarray, length_K: np.ndarray) -> np.ndarray:
        return np.exp(-place_K / self.setting["ipw"])

    def distance(self, apart_E: np.ndarray) -> np.ndarray:
        return np.exp(-apart_E / self.setting["inh"])
