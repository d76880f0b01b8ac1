"""Long sessions in pieces: what they hold, what training reads of them, and what is read in service then."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeling.config import TrainingConfig
from modeling.scoring import ModelScorer
from modeling.splits import Split, hide_last
from modeling.training.fit import fit
from modeling.training.pieces import divide
from schemas.errors import InputError
from tests.conftest import model_of, schema_of, sessions_of

LONG = [3, 4, 5, 6, 7, 8, 9]


def lists(sessions) -> list[list[int]]:
    spans = zip(sessions.starts.tolist(), sessions.lengths.tolist(), strict=True)
    return [sessions.items[start : start + length].tolist() for start, length in spans]


@pytest.mark.parametrize(
    ("items", "most", "pieces"),
    [
        (LONG, None, [LONG]),
        (LONG, 7, [LONG]),
        (LONG, 6, [[3, 4], [4, 5, 6, 7, 8, 9]]),
        (LONG, 3, [[3, 4, 5], [5, 6, 7], [7, 8, 9]]),
        (LONG[:6], 3, [[3, 4], [4, 5, 6], [6, 7, 8]]),
        (LONG[:4], 2, [[3, 4], [4, 5], [5, 6]]),
    ],
)
def test_each_event_but_the_first_is_predicted_once(
    items: list[int], most: int | None, pieces: list[list[int]]
) -> None:
    divided = divide(sessions_of([[8, 9], items, [5]]), most)
    assert lists(divided) == [[8, 9], *pieces, [5]]
    predicted = [item for piece in lists(divided) for item in piece[1:]]
    assert predicted == [9, *items[1:]]


def test_the_event_after_a_piece_is_that_of_its_session() -> None:
    divided = divide(sessions_of([LONG]).drop_last(2), 3)
    assert lists(divided) == [[3, 4, 5], [5, 6, 7]]
    assert divided.following is not None and divided.items[divided.following].tolist() == [6, 8]


def test_a_label_of_a_session_is_that_of_its_newest_piece() -> None:
    labelled = replace(sessions_of([LONG, [3, 4]]), labels={"bought": torch.tensor([1.0, 0.0])})
    bought = divide(labelled, 4).labels["bought"]
    assert bought.isnan().tolist() == [True, False, False] and bought[1:].tolist() == [1.0, 0.0]


def test_pieces_are_refused_where_past_sessions_are_read() -> None:
    with pytest.raises(InputError, match=r"piece_events 3.*past_events"):
        divide(replace(sessions_of([LONG]), past=object()), 3)


def test_a_model_trained_on_pieces_reads_no_more_of_a_history(tmp_path: Path) -> None:
    train = sessions_of([LONG, LONG[::-1], [3, 4]])
    nothing = hide_last(train.select(torch.arange(0)))
    split = Split(train, nothing, nothing, train)
    settings = model_of("sasrec", num_items=7).settings
    config = TrainingConfig(epochs=1, tokens_per_step=16, threads=1, piece_events=4)
    model, facts = fit(schema_of(7), split, settings, config, tmp_path, lambda line: None)
    assert facts["sessions"] == 5 and model.longest == 3
    histories = sessions_of([[9, 9, 9, *LONG[-3:]], LONG])
    vectors_NE = ModelScorer(model).queries(histories)
    assert torch.equal(vectors_NE[0], vectors_NE[1])
