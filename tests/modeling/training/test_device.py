"""Steps recorded once and replayed are the steps done one by one: same batches, losses and weights.

Instead of a CUDA graph, what torch is asked to do on the pretended device is recorded, operation by operation, and done again
with the very same tensors: Python has no part in a replay, so that all it did for one step alone would be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling import attention
from modeling.config import ModelConfig, TrainingConfig
from modeling.training import device
from modeling.training.fit import fit
from modeling.training.optimizer import make_optimizer
from modeling.training.plan import Plan
from modeling.training.schedule import make_schedule
from tests.conftest import model_of, random_sessions, schema_of, split_of
from tests.modeling.training.test_fit import Interrupt
from tests.second_device import PretendedTensor, pretended_cuda
from tests.slow import pared

pretended = pytest.mark.skipif(torch.cuda.is_available(), reason="replays are tried on the pretended device")
KERNELS = 350  # of a step of sasrec
CONFIG = TrainingConfig(
    epochs=3,
    tokens_per_step=64,
    evaluations=3,
    patience=10,
    threads=1,
    order="random",
    half_life_days=5e-4,
    schedule="linear",
    max_grad_norm=0.5,
)


VIEWS = (
    "view",
    "transpose",
    "t.default",
    "slice",
    "select",
    "squeeze",
    "expand",
    "detach",
    "alias",
    "split",
    "permute",
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


class Tally(TorchDispatchMode):
    """Counts operations that are not views; it keeps none of their results, of which gradients would have to be copies."""

    kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels += not any(view in str(func) for view in VIEWS)
        return func(*args, **(kwargs or {}))


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
    sessions, lines = random_sessions(40, 50), []
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


@pytest.fixture(scope="module")
def plainly(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts of the first case, whose steps were done one by one."""
    return run(tmp_path_factory.mktemp("plain"), CASES[0], None)[:2]


@pytest.fixture(scope="module")
def plain(plainly: tuple[dict[str, Tensor], dict[str, Any]]) -> dict[str, Tensor]:
    """Its weights."""
    return plainly[0]


@pretended
@pytest.mark.parametrize("groups", pared(CASES, CASES[:2].__contains__), ids=str)
def test_replayed_steps_are_the_steps_done_one_by_one(
    groups: dict[str, Any], plainly: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    """Over several epochs of different sizes, with a learning rate that falls and gradients that are clipped."""
    plain, expected = plainly if groups is CASES[0] else run(tmp_path / "plain", groups, None)[:2]
    Recorded.made = 0
    replayed, facts, _ = run(tmp_path / "replayed", groups, Recorded)
    assert Recorded.made == 1
    assert facts["history"] == expected["history"]
    torch.testing.assert_close(replayed, plain, rtol=0, atol=0)


@pretended
def test_an_interrupted_run_goes_on_to_the_same_bits(
    plainly: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    whole, facts = plainly
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, CASES[0], Recorded, Interrupt(facts["planned_steps"] * 2 // 3))
    Recorded.made = 0
    resumed, again, _ = run(tmp_path, CASES[0], Recorded)
    assert Recorded.made == 1
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert again["history"] == facts["history"]


@pretended
def test_what_reads_a_value_is_found_out_said_once_and_done_all_the_same(
    plain: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the step before the recording may not read; what fails there has changed nothing."""
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


@pretended
@pytest.mark.parametrize(("groups", "training"), [(CASES[0], {"capture": "off"}), ({"body": "gru4rec"}, {})], ids=str)
def test_steps_without_a_fixed_shape_and_those_told_so_are_not_recorded(
    groups: dict[str, Any], training: dict[str, Any], tmp_path: Path
) -> None:
    Recorded.made = 0
    run(tmp_path, groups, Recorded, **training)
    assert not Recorded.made


SAMPLED = {"name": "sampled_softmax", "negatives": {"count": 8, "source": "in_batch", "corrected": True}}


def steps_of(groups: dict[str, Any], compiled: Any = None) -> list[float]:
    """The losses of some steps over flat rows on a CPU, with a loss that is compiled by `compiled`."""
    torch.manual_seed(0)
    model = model_of(**groups).train()
    config = TrainingConfig(epochs=2, tokens_per_step=256, order="random")
    schedule = make_schedule(model, random_sessions(100, 50, longest=20), config)
    schedule.fixed = True  # as on a GPU
    plan = Plan(schedule.steps_per_epoch, config)
    steps = device.Steps(model, make_optimizer(model, config), schedule, plan, 0, lambda line: None)
    if compiled:
        steps.loss_of_step = compiled(steps._loss_of_step)
    torch.manual_seed(1)
    losses = []
    for step in range(len(schedule)):
        steps.do(step)
        losses.append(steps.mean_loss())
    assert len(losses) > schedule.steps_per_epoch[0] > 2
    return losses


@pytest.mark.parametrize(
    ("body", "objective", "loss"),
    pared(
        [
            ("sasrec", "causal", SAMPLED),
            ("sasrec", "causal", {"name": "full_softmax", "label_smoothing": 0.1}),
            ("hstu", "causal", SAMPLED),
            ("llama", "causal", SAMPLED),
            ("gpt2", "causal", SAMPLED),
            ("bert4rec", "masked", SAMPLED),
        ],
        lambda case: case[0] == "bert4rec" or case[2] != SAMPLED,
    ),
    ids=str,
)
def test_a_step_is_compiled_whole_and_once_for_all_steps(
    body: str, objective: str, loss: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch, the loss and flex_attention: no operation of Python's alone tears it to pieces.

    What a masked objective draws is drawn from another generator then.
    """
    monkeypatch.setattr(attention, "FLEX_ON", ("cpu", "cuda"))
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *given: None)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    groups = {
        "body": {"name": body, "dropout": 0.1, "dim": 32},
        "objective": objective,
        "loss": loss,
    }
    whole = partial(torch.compile, backend="eager", fullgraph=True, dynamic=False)
    compiled = steps_of(groups, whole)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # dropout is torch's here, too, as on a GPU
    assert compiled == pytest.approx(steps_of(groups), rel=1e-5 if objective == "causal" else 0.2)


@pretended
def test_what_cannot_be_compiled_is_said_and_done_as_it_is(
    plain: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **options: Any) -> Any:
        def loss_of_step() -> Tensor:
            raise TorchDynamoException("no compiler here")

        return loss_of_step

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(device, "COMPILED_FROM", 0)
    Recorded.made = 0
    found, _, lines = run(tmp_path / "broken", CASES[0], Recorded)
    assert sum("no compiler here" in line for line in lines) == 1
    assert Recorded.made == 1
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


@pretended
@pytest.mark.parametrize("slope", [0.0, 100.0, float("nan")])
def test_a_compiler_that_gives_other_gradients_is_found_out(
    slope: float, plain: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right loss with gradients of zero would train nothing, and say so nowhere."""

    def wrong(loss_of_step: Callable[[], Tensor], **options: Any) -> Callable[[], Tensor]:
        def compiled() -> Tensor:
            loss = loss_of_step()
            return loss.detach() + slope * (loss - loss.detach())

        return compiled

    monkeypatch.setattr(torch, "compile", wrong)
    monkeypatch.setattr(device, "COMPILED_FROM", 0)
    found, _, lines = run(tmp_path / "wrong", CASES[0], Recorded)
    assert sum("gradients of" in line and "goes on without" in line for line in lines) == 1
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


@pretended
def test_a_compiler_that_gives_the_same_is_believed(
    plain: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda loss_of_step, **options: loss_of_step)
    monkeypatch.setattr(device, "COMPILED_FROM", 0)
    found, _, lines = run(tmp_path / "same", CASES[0], Recorded)
    assert not any("goes on without" in line for line in lines)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


@pretended
def test_how_much_torch_is_asked_to_do_in_a_step() -> None:
    """Operations that are kernels on a GPU, views apart: each costs a captured step about 3 us, however small."""
    with pretended_cuda():
        model = model_of("sasrec", loss={"name": "sampled_softmax", "negatives": {"count": 8}}).to("cuda").train()
        config = TrainingConfig(epochs=1, tokens_per_step=64, order="random")
        schedule = make_schedule(model, random_sessions(100, 50).to("cuda"), config)
        plan = Plan(schedule.steps_per_epoch, config)
        steps = device.Steps(model, make_optimizer(model, config), schedule, plan, 0, lambda line: None)
        steps.do(0)
        schedule.seek(1)
        with Tally() as tally:
            steps._on_device()
    assert 200 < tally.kernels <= KERNELS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu(compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured steps have the losses of those done one by one; compiled ones draw other numbers, and learn as well."""
    monkeypatch.setattr(device, "COMPILED_FROM", 0 if compiled else 1 << 60)
    sessions, curves = random_sessions(400, 50), []
    model = ModelConfig.model_validate({"body": {"dim": 32, "dropout": 0.3}})
    for capture in ("off", "auto"):
        lines: list[str] = []
        config = CONFIG.model_copy(update={"capture": capture, "tokens_per_step": 128})
        report = lambda line, lines=lines: lines.append(str(line))  # noqa: E731
        _, facts = fit(schema_of(50), split_of(sessions, sessions), model, config, tmp_path / capture, report)
        curves.append([row["loss"] for row in facts["history"]])
        assert not any("goes on without" in line for line in lines)
    assert curves[1] == pytest.approx(curves[0], rel=0.05 if compiled else 1e-2)
