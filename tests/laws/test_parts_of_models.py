"""What every objective, head, baseline and preset must obey; and that each law is seen to be broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.check import check_folder
from flows.laws import baselines as baseline_laws
from flows.laws import broken, models, presets
from flows.laws import heads as head_laws
from flows.laws import objectives as objective_laws
from modeling import heads, objectives
from modeling.evaluation import baselines
from modeling.presets import known_presets
from schemas import plugins
from tests.schemas.own import part


@pytest.mark.parametrize("name", plugins.names(objectives))
def test_every_objective_obeys(name: str) -> None:
    assert broken(objective_laws.LAWS, models.trial_of("objectives", name, {})) == []


@pytest.mark.parametrize("name", plugins.names(heads))
def test_every_head_obeys(name: str) -> None:
    assert broken(head_laws.LAWS, models.trial_of("heads", name, {})) == []


@pytest.mark.parametrize("name", plugins.names(baselines))
def test_every_baseline_obeys(name: str) -> None:
    assert broken(baseline_laws.LAWS, baseline_laws.Trial(name)) == []


@pytest.mark.parametrize("name", known_presets())
def test_every_preset_obeys(name: str) -> None:
    assert broken(presets.LAWS, presets.trial_of(name)) == []


OBJECTIVE = """
import torch
from modeling.objectives import Objective


class Wrong(Objective):
    direction = "{direction}"
    drops = {drops}

    def batch(self, sessions, lay_out, generator):
        layout = lay_out(sessions{dropped})
        event_BL = layout.event_BL
        asked_BL = torch.where(layout.segments_BL > 0, event_BL, -1)
        return self.make_batch(sessions, layout, {read}, {asked})
"""
BASELINE = """
import torch
from modeling.evaluation.baselines._baseline import Baseline


class Wrong(Baseline):
    def fit(self, train, last_day):
        self.score_V = torch.from_numpy(self.popularity(train))
        {fit}

    def queries(self, histories):
        return {queries}

    def tile(self, queries, first, last):
        return {tile}
"""
HEAD = """
import torch
from modeling.heads._label import LabelHead


class Wrong(LabelHead):
    metrics = {metrics}

    def __init__(self, label, config, schema):
        super().__init__(label, config, schema, None)

    def check(self, value_N): ...

    def begin_at(self, value_N): ...

    def error(self, score_N, value_N):
        return {error}

    def predict(self, h_ND):
        return {predict}
"""
PRESET = "title: Mine\npaper: arXiv:1808.09781\ndeviates: [all of it.]\n"
RIGHT = {
    "drops": "1",
    "dropped": ".drop_last(1)",
    "read": "event_BL",
    "asked": "torch.where(asked_BL >= 0, asked_BL + 1, -1)",
}
COUNTS = {"fit": "", "queries": "self.score_V.expand(len(histories), -1)", "tile": "queries[:, first:last].clone()"}
SQUARE = {"metrics": "{'one': lambda p, v: 1.0}", "error": "(score_N - value_N) ** 2", "predict": "self.score(h_ND)"}


def found(tmp_path: Path, kind: str, text: str) -> str:
    """What `overnight check` says of a part `wrong`, in one line; empty where it keeps every law."""
    part(tmp_path, f"{kind}/wrong.{'yaml' if kind == 'presets' else 'py'}", text)
    verdict = check_folder(tmp_path, say=lambda line: None)
    assert not verdict.not_tried
    return " ".join(verdict.broken.get(f"{kind}/wrong", []))


@pytest.mark.parametrize(
    ("direction", "change", "words"),
    [
        ("causal", {}, ""),
        ("causal", {"asked": "asked_BL"}, "Of items drawn independently nothing can be learned"),
        ("both", {}, "Of items drawn independently nothing can be learned"),
        ("causal", {"asked": "asked_BL * 0 - 1"}, "It asks about nothing"),
        ("causal", {"asked": "torch.where(asked_BL >= 0, asked_BL.flip(1) + 1, -1)"}, "another session"),
        (
            "causal",
            {"asked": "torch.where((asked_BL >= 0) & (torch.rand(asked_BL.shape) < 0.7), asked_BL + 1, -1)"},
            "draw from the generator",
        ),
        ("causal", {"read": "event_BL.no_such"}, "AttributeError"),
        ("causal", {"drops": "2"}, "`drops` is too large"),
    ],
)
def test_an_objective_that_breaks_a_law_is_found(
    tmp_path: Path, direction: str, change: dict[str, str], words: str
) -> None:
    message = found(tmp_path, "objectives", OBJECTIVE.format(direction=direction, **RIGHT | change))
    assert words in message if words else message == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"queries": "self.score_V.double().expand(len(histories), -1)"}, "They are torch.float64"),
        ({"queries": "self.score_V[:9].expand(len(histories), -1)"}, "the shape [60, 9]"),
        ({"queries": "self.score_V.expand(len(histories), -1) / 0"}, "They are not finite"),
        (
            {"queries": "self.score_V.expand(len(histories), -1) * len(histories)"},
            "A history alone is scored otherwise",
        ),
        ({"queries": "self.score_V.expand(len(histories), -1) / (histories.lengths[:, None] - 1)"}, "one event"),
        ({"tile": "queries[:, first:last]", "queries": "self.score_V.repeat(len(histories), 1)"}, "return a copy"),
        ({"tile": "queries[:, first:last] - first"}, "A tile is not those columns"),
        ({"fit": "self.score_V = torch.rand(self.num_items)"}, "The scores differ"),
        ({"fit": "train.items.fill_(3)"}, "It changes them"),
        (
            {"fit": "self.rankable_V = self.score_V > 99"},
            "Items with a training event may be ranked",
        ),
    ],
)
def test_a_baseline_that_breaks_a_law_is_found(tmp_path: Path, change: dict[str, str], words: str) -> None:
    message = found(tmp_path, "baselines", BASELINE.format(**COUNTS | change))
    assert words in message if words else message == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"error": "((score_N - value_N) ** 2).mean()"}, "take no mean"),
        ({"error": "(score_N - value_N.mean()) ** 2"}, "Alone, a prediction costs something else"),
        ({"predict": "h_ND"}, "For 30 states the shape is [30, 16]"),
        ({"predict": "self.score(h_ND) / 0"}, "They are not finite"),
        ({"metrics": "{}"}, "It measures nothing"),
        ({"metrics": "{'odd': lambda p, v: p.mean()}"}, "Its metric odd is Tensor"),
    ],
)
def test_a_head_that_breaks_a_law_is_found(tmp_path: Path, change: dict[str, str], words: str) -> None:
    message = found(tmp_path, "heads", HEAD.format(**SQUARE | change))
    assert words in message if words else message == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("body: {name: sasrec, dim: 16}\n", ""),
        ("heads: {next_item: {}, clicked: {name: regression}}\n", ""),
        ("body: {name: my_own, dim: 16}\n", ""),
        ("body: sasrek\n", "Did you mean 'sasrec'"),
        ("body: {name: sasrec, depth: 3}\n", "Unknown key of body sasrec 'depth'"),
        ("body: gru4rec\nobjective: masked\n", "cannot be trained with objective 'masked'"),
        ("body: {name: sasrec, dim: 16}\nbody: {name: sasrec, dim: 32}\n", "the key 'body' is there twice"),
        ("body: {name: sasrec, dim: 16, dim: 32}\n", "the key 'dim' is there twice"),
    ],
)
def test_a_preset_that_is_no_model_is_found(tmp_path: Path, text: str, words: str) -> None:
    own = "from modeling.bodies.sasrec import SASRec\n\n\nclass MyOwn(SASRec): ...\n"
    part(tmp_path, "bodies/my_own.py", own)
    message = found(tmp_path, "presets", PRESET + text)
    assert words in message if words else message == ""
