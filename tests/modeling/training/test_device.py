"""Steps recorded once and replayed are the steps done one by one: same batches, losses and weights.

Instead of a CUDA graph, what torch is asked to do on the pretended device is recorded, operation by operation, and done again
with the very same tensors: Python has no part in a replay, so that whatever it did for one step alone would be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling.config import ModelConfig, TrainingConfig
from modeling.training import device
from modeling.training.fit import fit
from tests.conftest import random_sessions, schema_of, split_of
from tests.modeling.training.test_fit import Interrupt
from tests.second_device import PretendedTensor, pretended_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="replays are tried on the pretended device")
CONFIG = TrainingConfig(
    epochs=3,
    tokens_per_step=64,
    evaluations=3,
    patience=10,
    threads=1,
    order="random",
    half_life_days=5e-4,
    schedule="linear",
)


class Tape(TorchDispatchMode):
    """Notes every operation, its arguments and what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class Recorded:
    """Stands in for `device.Recording`. Unlike a graph it cannot note what it does not do: the first replay is done already."""

    made = 0

    def __init__(self, work: Callable[[], None], generator: torch.Generator) -> None:
        Recorded.made += 1
        with Tape() as tape:
            work()
        self.calls, self.is_done = tape.calls, True

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in [] if self.is_done else self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, PretendedTensor) and old is not new and not shares(old, (args, kwargs)):
                    old.inner.copy_(new.inner)
        self.is_done = False


def shares(out: PretendedTensor, given: Any) -> bool:
    """Whether a result is a view of an argument."""
    own = out.inner.untyped_storage().data_ptr()
    leaves = (leaf for leaf in tree_leaves(given) if isinstance(leaf, PretendedTensor))
    return own in {leaf.inner.untyped_storage().data_ptr() for leaf in leaves}


def run(
    folder: Path, groups: dict[str, Any], recording: type | None, after_step: Interrupt | None = None, **training: Any
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Fit a small model on the pretended device; its weights, the facts and the lines said."""
    sessions, lines = random_sessions(60, 50), []
    modes: list[str] = []
    model = ModelConfig.model_validate({"body": {"dim": 16, "dropout": 0.3}} | groups)
    config = CONFIG.model_copy(update=training)
    with pretended_cuda(), pytest.MonkeyPatch.context() as patched:
        if recording:
            patched.setattr(device, "can_capture", lambda model: True)
            patched.setattr(device, "Recording", recording)
            patched.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
        split = split_of(sessions, sessions)
        fitted, facts = fit(
            schema_of(50), split, model, config, folder, lambda line: lines.append(str(line)), after_step=after_step
        )
        return {name: value.cpu() for name, value in fitted.state_dict().items()}, facts, lines


CASES: list[dict[str, Any]] = [
    {"loss": {"name": "sampled_softmax", "negatives": {"count": 8}}, "heads": {"next_item": {"bias": True}}},
    {"body": "bert4rec", "objective": "masked"},
    {"body": "hstu"},
    {"body": "gpt2", "objective": "replaced_token"},
]


@pytest.mark.parametrize("groups", CASES, ids=str)
def test_replayed_steps_are_the_steps_done_one_by_one(groups: dict[str, Any], tmp_path: Path) -> None:
    """Over several epochs of different sizes, with a learning rate that falls and gradients that are clipped."""
    plain, expected, _ = run(tmp_path / "plain", groups, None, max_grad_norm=0.5)
    Recorded.made = 0
    replayed, facts, _ = run(tmp_path / "replayed", groups, Recorded, max_grad_norm=0.5)
    assert Recorded.made == 1
    assert facts["history"] == expected["history"]
    torch.testing.assert_close(replayed, plain, rtol=0, atol=0)


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, facts, _ = run(tmp_path / "whole", CASES[0], Recorded)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", CASES[0], Recorded, Interrupt(facts["planned_steps"] * 2 // 3))
    resumed, again, _ = run(tmp_path / "broken", CASES[0], Recorded)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert again["history"] == facts["history"]


def test_what_reads_a_value_is_found_out_said_once_and_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the step before the recording may not read; what fails there has changed nothing."""
    plain, _, _ = run(tmp_path / "plain", CASES[0], None)
    Recorded.made, doing = 0, device.Steps._loss_of_step

    def reading(steps: device.Steps) -> Tensor:
        if steps.captures and steps.done == device.WARM_UP:
            raise RuntimeError("called a synchronizing CUDA operation")
        return doing(steps)

    monkeypatch.setattr(device.Steps, "_loss_of_step", reading)
    found, _, lines = run(tmp_path / "reading", CASES[0], Recorded)
    assert sum("called a synchronizing CUDA operation" in line for line in lines) == 1
    assert not Recorded.made
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


@pytest.mark.parametrize(("groups", "training"), [(CASES[0], {"capture": "off"}), ({"body": "gru4rec"}, {})], ids=str)
def test_steps_without_a_fixed_shape_and_those_told_so_are_not_recorded(
    groups: dict[str, Any], training: dict[str, Any], tmp_path: Path
) -> None:
    Recorded.made = 0
    run(tmp_path, groups, Recorded, **training)
    assert not Recorded.made
