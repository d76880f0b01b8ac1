"""What every body must obey in every direction it offers: no look into the future, no neighbours, no padding."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.laws import Law, broken
from flows.laws import bodies as laws
from flows.laws import models as model_laws
from modeling import bodies, heads, losses
from schemas import plugins
from tests.schemas.own import part

EVERY = [trial for name in plugins.names(bodies) for trial in laws.trials_of(name)]
NAMES = [f"{trial.name}-{trial.direction}{'-rotary' * trial.rotary}" for trial in EVERY]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("trial", EVERY, ids=NAMES)
def test_every_body_obeys(trial: laws.Trial, law: Law) -> None:
    law(trial)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("losses", name) for name in plugins.names(losses)] + [("heads", n) for n in plugins.names(heads)],
)
def test_every_loss_and_head_obeys(kind: str, name: str) -> None:
    assert broken(model_laws.LAWS, model_laws.trial_of(kind, name, {})) == []


BODY = """
import torch
from torch import nn

from modeling.bodies import Body


class Wrong(Body):
    def __init__(self, config, rotary):
        super().__init__(config, rotary)
        self.mix = nn.Linear(config.dim, config.dim)

    def forward(self, x_BLD, layout):
        return {returns}
"""


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        ("self.mix(x_BLD) + x_BLD.cumsum(1)", "Other sessions in a row and padding"),
        ("self.mix(x_BLD) + x_BLD.flip(1)", "Earlier states change with later events"),
        ("self.mix(x_BLD)", "Earlier events change the states of later ones"),
        ("x_BLD + x_BLD.cumsum(1)", "mix.weight gets none"),
        ("self.mix(x_BLD)[:, 1:]", "Its states are"),
        ("self.mix(x_BLD) + torch.rand(1)", "The same weights and inputs"),
        ("self.nothing(x_BLD)", "AttributeError"),
    ],
)
def test_a_body_that_breaks_a_law_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returns: str, words: str
) -> None:
    part(tmp_path, "bodies/wrong.py", BODY.format(returns=returns))
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path))
    lines = [line for trial in laws.trials_of("wrong") for line in broken(laws.LAWS, trial)]
    assert any(words in line for line in lines), lines


@pytest.mark.parametrize(
    ("sees", "words"),
    [
        ("layout.mask_B1LL[:, 0]", "It asked the layout for mask_B1LL"),
        ("(layout.segments_BL == layout.segments_BL).unsqueeze(1)", "Other sessions in a row and padding"),
    ],
)
def test_a_body_that_does_not_take_flat_rows_though_it_says_so_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sees: str, words: str
) -> None:
    flat = BODY.replace("(Body):", "(Body):\n    flat = True").replace("{returns}", "self.mix(x_BLD) + seen @ x_BLD")
    flat = flat.replace("        return", f"        seen = ({sees}).to(x_BLD.dtype)\n        return")
    part(tmp_path, "bodies/wrong.py", flat)
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path))
    lines = [line for trial in laws.trials_of("wrong") for line in broken(laws.LAWS, trial)]
    assert any(words in line for line in lines), lines


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("(negative_NK.clamp(min=-5) - positive_N.unsqueeze(1)).exp().mean(1)", "does not count"),
        ("positive_N / 0", "one finite number"),
        ("(negative_NK.amax(1) - positive_N).mean()", "its shape is []: take no mean"),
        ("negative_NK - positive_N.unsqueeze(1)", "its shape is [8, 5]"),
        ("positive_N.square() + positive_N.mean()", "from its own scores"),
        ("(positive_N - 7).square()", ""),
    ],
)
def test_a_loss_that_breaks_a_law_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formula: str, words: str
) -> None:
    part(tmp_path, "losses/wrong.py", f"def wrong(positive_N, negative_NK, num_items):\n    return {formula}\n")
    monkeypatch.setenv("OVERNIGHT_PLUGINS", str(tmp_path))
    lines = broken(model_laws.LAWS, model_laws.trial_of("losses", "wrong", {}))
    assert any(words in line for line in lines) if words else lines == [], lines
