"""V-SkNN: items of the sessions most like the history, in which later events count more.

Ludewig and Jannach, Evaluation of session-based recommendation algorithms (UMUAI 28, 2018), as in session-rec's `VMContextKNN`
with weighting and weighting_score `div`. With L events of a history, the p-th of which is an item:

    similarity = sum over the shared items of p / L, divided by the number of different items of the history,
    position   = 1 / (1 + events of the history after the latest item that the neighbour holds).

Of 1,000 sampled sessions the 100 or 500 nearest, as validation chooses; idf_weight 1.
"""

import numpy as np

from modeling.evaluation.baselines._neighbours import Neighbours


class VSKNN(Neighbours):
    """score(item) = sum over the most similar of the newest sessions with an item of the history, later items weighted more."""

    grid = tuple({"sampled": 1000.0, "neighbours": count, "idf_weight": 1.0} for count in (100.0, 500.0))

    def item_weight(self, place_P: np.ndarray, length_P: np.ndarray) -> np.ndarray:
        weight_P: np.ndarray = (length_P - place_P) / length_P
        return weight_P

    def similarity(self, shared_C: np.ndarray, weight_P: np.ndarray, pair: tuple[np.ndarray, ...]) -> np.ndarray:
        history_P, history_C, _ = pair
        similarity_C: np.ndarray = shared_C / np.bincount(history_P)[history_C]
        return similarity_C

    def position(self, place_K: np.ndarray, length_K: np.ndarray) -> np.ndarray:
        return 1 / (1 + place_K)
