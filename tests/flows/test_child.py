"""Stages in a process of their own: the same results, the same errors, and no process left however one of them ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows import endings, stages
from flows.child import Child
from flows.child_output import Output
from flows.keeper import below
from flows.orders import FailedStageError, Failure, Message, Order
from flows.settings.settings import Data, Settings, resolve
from modeling.presets import known_presets
from schemas import claims, lock
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import SHIPPED, known
from schemas.errors import DivergedError, InputError, MisfitError, OutsideError, StageEndedError
from schemas.lock import LostLockError
from schemas.owner import Owner
from schemas.progress import Progress, TrainingProgress
from tests.flows.conftest import LONG_SECONDS, clean_environment
from tests.flows.served import is_there, wait_until
from tests.slow import slow

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
LITTLE: dict[str, Any] = {
    "training": {"epochs": 5, "tokens_per_step": 64, "threads": 1},
    "body": {"dim": 16, "num_layers": 1},
    "evaluation": {"baselines": ["popularity"], "lists": 10},
}
LONG = LITTLE | {"training": LITTLE["training"] | {"epochs": 1000}}


SPEAKING = """
import os, sys, torch
from modeling.evaluation.baselines.popularity import Popularity

class Speaking(Popularity):
    def fit(self, train, last_day):
        print("printed")
        os.write(1, b'{"text": "no message"}\\n')
        os.write(2, b"an error\\n")
        print("loaded:", *sorted({"torch._dynamo", "pandas.core"} & set(sys.modules)))
        super().fit(train, last_day)
"""


def settings_of(shop: Path, root: Path, given: dict[str, Any] = LITTLE, dataset: str = "demo") -> Settings:
    return resolve(Data(dataset=dataset, source=str(shop), root=root), None, given)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A dataset with a baseline of its own, which writes wherever it can."""
    (tmp_path / "plugins" / "baselines").mkdir(parents=True)
    (tmp_path / "plugins" / "baselines" / "speaking.py").write_text(SPEAKING)
    demo = (SHIPPED / "demo.yaml").read_text().replace("name: demo", "name: corner\nplugins: plugins")
    (tmp_path / "corner.yaml").write_text(demo)
    return str(tmp_path / "corner.yaml")


@pytest.fixture
def sessions(shop: Path, tmp_path: Path) -> Manifest:
    return stages.prepare(settings_of(shop, tmp_path), lambda _: None)


def processes() -> list[int]:
    """The keeper, what it keeps, and what that started."""
    return below(os.getpid())


class Watch:
    """Keeps what a stage reports, and does something once at a share of its steps."""

    def __init__(self, share: float = 2.0, act: Callable[[], object] = lambda: None) -> None:
        self.reports: list[Progress | str] = []
        self.share, self.act = share, act

    def __call__(self, report: Progress | str) -> None:
        self.reports.append(report)
        if isinstance(report, Progress) and report.total and report.done / report.total >= self.share:
            self.share = 2.0
            self.act()

    @property
    def text(self) -> str:
        return "\n".join(map(str, self.reports))


def kill(number: int) -> Callable[[], None]:
    """Sends a signal to the process that trains."""
    return lambda: os.kill(processes()[1], number)


def test_results_are_those_of_this_process_bit_for_bit(shop: Path, tmp_path: Path, own: str) -> None:
    given = LITTLE | {"evaluation": {"baselines": ["popularity", "speaking"], "lists": 10}}
    settings, elsewhere, watch = (
        settings_of(shop, tmp_path, given, own),
        settings_of(shop, tmp_path / "else", given, own),
        Watch(),
    )
    sessions = stages.prepare(settings, lambda _: None)
    with lock.holding(tmp_path, lock.NIGHT, "night of shop") as held, Child() as child:
        model = child.does(stages.train)(settings, sessions, watch)
        assert not model.reused and model.token == held.token > 0 and len(processes()) == 2
        evaluation = child.does(stages.evaluate)(settings, model, sessions, watch)
        comparison = child.does(stages.compare)(settings, evaluation, sessions, watch)
        assert child.promotes()(settings, comparison, watch).model in (model.name, "none")
        child.end()
        assert not processes()
        assert child.does(stages.train)(settings, sessions, watch).reused
        assert child.does(stages.evaluate)(settings, model, sessions, watch).reused
        assert not processes(), "what is done is found without one"
    numbers = [report for report in watch.reports if isinstance(report, TrainingProgress)]
    assert numbers[-1].done == numbers[-1].total > 0 and numbers[-1].loss
    said = set(watch.text.splitlines())
    assert {"printed", '{"text": "no message"}', "an error"} <= said
    assert "loaded:" in said, (
        "a compiler and pandas, which nothing here needs, take as long to load as this model to train"
    )
    sessions = stages.prepare(elsewhere, lambda _: None)
    alone = stages.train(elsewhere, sessions, lambda _: None)
    assert alone.id == model.id
    assert (alone.folder / "model.safetensors").read_bytes() == (model.folder / "model.safetensors").read_bytes()
    again = stages.evaluate(elsewhere, alone, sessions, lambda _: None)
    assert again.id == evaluation.id and again.facts["metrics"] == evaluation.facts["metrics"]


def test_a_killed_training_is_one_clear_line_and_goes_on_to_the_same_bits(
    shop: Path, tmp_path: Path, sessions: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, events = settings_of(shop, tmp_path), tmp_path / "shop" / "memory.events"
    events.parent.mkdir()
    events.write_text("low 0\noom_kill 3\n")
    (tmp_path / "own").write_text("1:name=systemd:/\n0::/shop\n")
    monkeypatch.setattr(endings, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(endings, "GROUPS", tmp_path)

    def out_of_memory() -> None:
        events.write_text("low 0\noom_kill 4\n")
        kill(signal.SIGKILL)()

    with Child() as child:
        train = child.does(stages.train)
        with pytest.raises(
            StageEndedError, match=r"stage train has no result.*fault of native code \(SIGSEGV\)"
        ) as fault:
            train(settings, sessions, first := Watch(0.25, kill(signal.SIGSEGV)))
        assert "Fatal Python error: Segmentation fault" in first.text and "\n" not in str(fault.value)
        assert not processes()
        with pytest.raises(StageEndedError, match=r"by the kernel, as memory ran out.*training.tokens_per_step"):
            train(settings, sessions, second := Watch(0.45, out_of_memory))
        assert not processes()
    model = stages.train(settings, sessions, third := Watch())
    assert "Going on from step" not in first.text
    assert "Going on from step" in second.text and "Going on from step" in third.text
    assert not list(tmp_path.glob("unfinished/*"))
    elsewhere = settings_of(shop, tmp_path / "else")
    whole = stages.train(elsewhere, stages.prepare(elsewhere, lambda _: None), lambda _: None)
    assert whole.id == model.id
    assert (whole.folder / "model.safetensors").read_bytes() == (model.folder / "model.safetensors").read_bytes()


@pytest.fixture
def memory_limit() -> Iterator[Callable[[int], Path]]:
    """Makes a control group with a limit of memory, of either version."""
    made: list[Path] = []

    def group(limit: int) -> Path:
        first = endings.GROUPS / "memory" if (endings.GROUPS / "memory").is_dir() else endings.GROUPS
        folder = first / f"overnight-{os.getpid()}"
        try:
            folder.mkdir()
            made.append(folder)
            file = next(folder / name for name in ("memory.limit_in_bytes", "memory.max") if (folder / name).exists())
            file.write_text(str(limit))
        except (OSError, StopIteration):
            pytest.skip("a control group with a limit of memory takes root")
        return folder

    yield group
    for folder in made:
        folder.rmdir()


@pytest.mark.fault(
    "the kernel kills what trains, as a real limit of memory is reached",
    outcome="one line says so and what to do; it is not tried again, and the model in service stays",
)
def test_memory_that_really_runs_out_is_said(
    shop: Path, tmp_path: Path, sessions: Manifest, memory_limit: Callable[[int], Path]
) -> None:
    """The run is in the group, too, as in a container: the process that trains is the one to go."""
    hungry = LITTLE | {"body": {"dim": 2048, "num_layers": 4}}  # weights and moments of 3 GB
    group = memory_limit(900 << 20)
    enter = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    run = subprocess.run(
        [sys.executable, "-c", enter + TRAIN, str(shop), str(tmp_path), json.dumps(hungry)],
        env=clean_environment(),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
    )
    line = run.stderr.splitlines()[-1]
    assert "StageEndedError: The stage train has no result" in line
    assert "its process was killed (SIGKILL), by the kernel, as memory ran out." in line
    assert "a lower training.tokens_per_step" in line
    assert not list(tmp_path.glob("models/*")) and lock.owner_of(tmp_path) is None


def test_mistakes_have_the_text_they_have_here(shop: Path, tmp_path: Path, sessions: Manifest) -> None:
    diverging = settings_of(shop, tmp_path, LITTLE | {"training": LITTLE["training"] | {"learning_rate": 1e30}})
    with pytest.raises(DivergedError) as here:
        stages.train(diverging, sessions, lambda _: None)
    with Child() as child:
        with pytest.raises(DivergedError) as there:
            child.does(stages.train)(diverging, sessions, lambda _: None)
        assert str(there.value) == str(here.value)
        assert len(processes()) == 2, "it goes on to do stages"
        (sessions.folder / "items.parquet").write_bytes(b"no table")
        with pytest.raises(FailedStageError, match=r"^ComputeError: parquet: ") as failed:
            child.does(stages.train)(settings_of(shop, tmp_path), sessions, watch := Watch())
        assert "Traceback" in watch.text and "Traceback" not in str(failed.value)
    assert not processes()


def test_where_the_lock_is_lost_the_process_writes_no_model(
    shop: Path, tmp_path: Path, sessions: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.child.lock.require_held", lambda: None)  # else the run notices it first
    here = Owner.here("night of shop")
    other = here.model_copy(update={"host": "another-machine"}).model_dump_json()
    with lock.holding(tmp_path, lock.NIGHT, "night of shop") as held, Child() as child:
        taken = Watch(0.1, lambda: claims.claim(held.folder, f"{held.token + 1:012}", other))
        with pytest.raises(LostLockError, match=r"was taken over by night of shop .*another-machine"):
            child.does(stages.train)(settings_of(shop, tmp_path), sessions, taken)
    assert not processes() and not list(tmp_path.glob("models/*"))


def test_a_lent_lock_is_lost_with_its_holder(tmp_path: Path) -> None:
    with lock.holding(tmp_path, lock.NIGHT, "night of shop") as held:
        (lent,) = lock.lend()
        lent = lock.Lent.model_validate_json(lent.model_dump_json())
        claims.claim(held.folder, f"{held.token + 1:012}", held.owner.model_dump_json())
        lent.check()
        assert lent.token == held.token + 1, "its holder took it anew"
        other = held.owner.model_copy(update={"since": datetime.now(UTC)})
        claims.claim(held.folder, f"{held.token + 2:012}", other.model_dump_json())
        with pytest.raises(LostLockError), lock.borrowing((lent,)):
            lock.require_held(tmp_path.resolve())


TRAIN = """
import json, os, sys
from pathlib import Path
from flows import stages
from flows.child import Child
from flows.settings.settings import Data, resolve
from schemas.artifacts import Artifacts

def say(report):
    if getattr(report, "done", 0):
        print("torch" in sys.modules, flush=True)

given = json.loads(sys.argv[3])
settings = resolve(Data(source=sys.argv[1], root=Path(sys.argv[2])), None, given)
sessions = stages.prepare(settings, lambda _: None)
with Child() as child:
    child.does(stages.train)(settings, sessions, say)
"""


@pytest.mark.parametrize(("number", "devices"), [(signal.SIGKILL, 2), (signal.SIGINT, 1)])
def test_the_end_of_a_run_ends_all_that_trains_for_it(number: int, devices: int, shop: Path, tmp_path: Path) -> None:
    given = LONG | {"training": LONG["training"] | {"devices": devices}}
    run = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(shop), str(tmp_path), json.dumps(given)],
        env=clean_environment(),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert run.stdout and run.stdout.readline() == b"False\n", "it trains, and does not load torch"
    family = below(run.pid)
    assert len(family) >= 2 * devices  # the keeper, the process, and of two devices one each
    os.kill(run.pid, number)
    run.stdout.close()
    assert run.wait(LONG_SECONDS) != 0
    wait_until(lambda: not any(map(is_there, family)))
    assert not list(tmp_path.glob("models/*"))


@slow  # how several end together is tested in tests/modeling/training/test_distributed.py
def test_a_killed_process_of_several_devices_is_one_line_too(shop: Path, tmp_path: Path, sessions: Manifest) -> None:
    given = LONG | {"training": LONG["training"] | {"devices": 2}}
    with Child() as child, pytest.raises(StageEndedError, match=r"stage train has no result: .*killed \(SIGKILL\)"):
        child.does(stages.train)(
            settings_of(shop, tmp_path, given), sessions, Watch(0.0, lambda: os.kill(processes()[-1], signal.SIGKILL))
        )
    assert not processes()


@pytest.mark.parametrize("name", [*known_presets(), *known()])
def test_settings_arrive_as_they_were(name: str, tmp_path: Path) -> None:
    is_preset = name in known_presets()
    settings = resolve(
        Data(source=str(tmp_path), root=tmp_path, dataset="demo" if is_preset else name),
        name if is_preset else None,
        {"training": {"start_from": "champion"}, "limits": {"train_hours": 0.5}},
    )
    arrived = Order.read(Order.of("train", settings, ()).line()).settings()
    for group in {field.name for field in fields(Settings)} - {"given", "only_finished"}:
        sent, got = getattr(settings, group), getattr(arrived, group)
        if group == "data":
            sent = sent.model_copy(update={"root": settings.artifacts.root})
        assert got == sent
        assert getattr(got, "model_fields_set", 0) == getattr(sent, "model_fields_set", 0), (
            "some mean more where they are given"
        )


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (InputError("no such column\nat all"), InputError),
        (MisfitError("other features"), MisfitError),
        (OutsideError("2026-01-01", "2026-03-02", "2026-03-05"), InputError),
        (LostLockError("taken over"), LostLockError),
        (MemoryError("of 3 TB"), MemoryError),
        (OSError(28, "No space left on device", "/models/x"), OSError),
        (FileNotFoundError(2, "No such file or directory"), FileNotFoundError),
        (ValueError("not ours"), FailedStageError),
    ],
)
def test_errors_arrive_as_what_they_are(error: Exception, arrives: type[Exception]) -> None:
    got = Message.read(Message(failure=Failure.of(error)).line()).failure
    assert got
    raised = got.error()
    assert type(raised) is arrives
    assert str(error) in str(raised) and str(raised).count("[Errno") == str(error).count("[Errno")
    if isinstance(raised, OSError):
        assert isinstance(error, OSError) and raised.errno == error.errno


def test_what_libraries_write_becomes_lines_and_never_a_message() -> None:
    script = (
        "import sys; sys.stdout.write(sys.argv[1] * 2 + sys.argv[1][:-1]); sys.stdout.flush()\n"
        "sys.stderr.buffer.write(b'a warning\\n\\n 10%\\r100% done\\nnot \\xff text\\n' + b'x' * 9000 + b'\\nlast'); "
    )
    message = Message.reporting(Progress("train", 3, 9)).line()
    process = subprocess.Popen([sys.executable, "-c", script, message], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, reports = Output(process), []
    while (messages := output.wait(1.0)) is not None:
        reports += [message.report() for message in messages]
    output.close()
    process.wait()
    assert reports.count(Progress("train", 3, 9)) == 3
    lines = [report for report in reports if isinstance(report, str)]
    assert lines[:3] == ["a warning", "100% done", "not \ufffd text"]
    assert len(lines[3]) == 2000 and lines[4:] == ["last"] and output.last_line == "last"


def test_a_flood_of_lines_is_cut() -> None:
    script = "import sys; sys.stderr.write('again\\n' * 5000)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, lines = Output(process), []
    while (messages := output.wait(1.0)) is not None:
        lines += [message.text for message in messages]
    output.close()
    process.wait()
    assert len(lines) == 1001 and lines[-1] == "More lines of this stage's process are not shown."


def test_artifacts_that_went_away_are_named(shop: Path, tmp_path: Path, sessions: Manifest) -> None:
    with Child() as child:
        gone = sessions.model_copy(update={"id": "0" * 16})
        with pytest.raises(InputError, match="sessions/0000000000000000' is not there any more"):
            child.does(stages.train)(settings_of(shop, tmp_path), gone, lambda _: None)
    assert Artifacts(tmp_path).find(sessions.kind, sessions.id)
