"""How often a step of training makes the host wait for the device: counted, so that it can only go down.

A step is a batch, the loss, its gradients and the optimizer's step. What is read is a value that Python asks for, or the size
of a result that depends on data (a mask as an index, repeat_interleave). An upload is a tensor that goes from the host to the
device. Neither may depend on how large a step is. The aim is none.
"""

from __future__ import annotations

import pytest
import torch

from modeling import losses
from modeling.config import TrainingConfig
from modeling.model import SequenceModel
from modeling.training.optimizer import RowAdamW
from modeling.training.schedule import make_schedule
from schemas import plugins
from tests.conftest import model_of, random_sessions
from tests.second_device import pretended_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts are taken on the pretended device")
UPLOADS = 3  # the order of sessions is kept on the host


def most(model: SequenceModel) -> tuple[int, int]:
    """The reads and uploads of the second step, or of a far larger one, whichever makes more."""
    counts = []
    for tokens in (64, 512):
        with pretended_cuda() as device:
            model.to("cuda").train()
            config = TrainingConfig(epochs=1, tokens_per_step=tokens, order="random")
            schedule, optimizer = (
                make_schedule(model, random_sessions(200, 50).to("cuda"), config),
                RowAdamW(model.parameters()),
            )
            for step in range(2):
                device.reads.clear()
                device.uploads = 0
                model(schedule[step]).backward()
                optimizer.step()
                optimizer.zero_grad()
            counts.append((device.reads.total(), device.uploads))
    reads, uploads = zip(*counts, strict=True)
    return max(reads), max(uploads)


@pytest.mark.parametrize(
    ("body", "objective", "ceiling"),
    [
        ("sasrec", "causal", 9),
        ("gru4rec", "causal", 7),
        ("sasrec", "masked", 14),
        ("xlnet", "permuted", 15),
        ("sasrec", "replaced_token", 17),
    ],
)
def test_objectives(body: str, objective: str, ceiling: int) -> None:
    reads, uploads = most(model_of(body, objective=objective))
    assert reads <= ceiling and uploads <= UPLOADS


@pytest.mark.parametrize("loss", plugins.names(losses))
def test_losses(loss: str) -> None:
    reads, uploads = most(model_of("sasrec", loss={"name": loss, "negatives": {"count": 8}}))
    assert reads <= 9 and uploads <= UPLOADS
