"""Progress in numbers, as a bar, as lines. tests/flows/test_runs.py has the artifact of a run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.reports.progress import PREPARE, TRAIN, Lines, TerminalProgress, as_progress, share_done
from schemas.progress import Progress, TrainingProgress


def terminal() -> Console:
    return Console(force_terminal=True, width=100, record=True, file=io.StringIO())


def test_a_terminal_shows_one_bar_through_all_phases_and_messages_above_it() -> None:
    console = terminal()
    with TerminalProgress(console=console) as progress:
        progress(Progress("read", 1, 1, "9 events [dated]"))
        task = progress.bar.tasks[0]
        assert (task.completed, task.description) == (3 / 8, "clean")
        progress(Progress("clean", 1, 2))
        assert (task.completed, task.description) == (3.5 / 8, "clean 1/2")
        progress(Progress("clean", message="2024-01-03: price has drifted"))
        assert task.completed == 3.5 / 8, "nothing is counted in a message"
        progress(Progress("publish", 1, 1))
        assert (task.completed, task.description) == (1.0, "publish")
        progress(Progress("dreaming", 1, 2))
        assert task.completed == 1.0, "a phase that is not one of them"
    printed = console.export_text()
    assert "read: 9 events [dated]" in printed and "price has drifted" in printed
    assert "clean: 1 of 2" not in printed


def test_elsewhere_lines_say_how_far_it_is() -> None:
    lines: list[str] = []
    tell = Lines(lines.append)
    for done in range(1, 101):
        tell(Progress("clean", done, 200))
    assert [line.partition("(")[2] for line in lines] == [f"{percent}%)" for percent in (10, 20, 30, 40, 50)]
    lines.clear()
    tell(Progress("encode", 1, 4))
    tell(Progress("encode", 4, 4, "2024-01-03 (0.1 s)"))
    tell(Progress("encode", 1, 4))  # of the next batch
    tell(Progress("plan", 1, 1))
    tell(Progress("commit", message="a line"))
    tell(Progress("commit", 0, 0))
    assert lines == ["encode: 1 of 4 (25%)", "encode: 2024-01-03 (0.1 s)", "plan", "a line"]


def test_output_that_is_no_terminal_has_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress(console=Console(file=io.StringIO(), soft_wrap=True)) as progress:
        progress(Progress("clean", 1, 2))
        progress("a line of [text]")
    assert isinstance(progress.console.file, io.StringIO)
    assert progress.console.file.getvalue().splitlines() == ["clean: 1 of 2 (50%)", "a line of [text]"]


def test_phases_have_equal_weight() -> None:
    assert share_done(Progress(PREPARE[0], 1, 4), PREPARE) == 1 / 32
    assert share_done(Progress(PREPARE[-1], 9, 3), PREPARE) == 1.0
    assert share_done(Progress("other", 1, 4), PREPARE) is None


def test_training_shows_its_numbers() -> None:
    assert as_progress("Training sasrec (50%)") == Progress("train", message="Training sasrec (50%)")
    report = TrainingProgress("train", 4, 8, epoch=0.5, loss=5.5, metric="ndcg@20", validation=0.25, seconds=3.0)
    lines: list[str] = []
    Lines(lines.append)(report)
    assert lines == ["train: 4 of 8 (50%), loss 5.500, ndcg@20 0.2500"]
    with TerminalProgress(TRAIN, terminal()) as progress:
        progress(report)
        task = progress.bar.tasks[0]
        assert (task.completed, task.description) == (0.5, "train 4/8, loss 5.500, ndcg@20 0.2500")
        progress(TrainingProgress("train", 8, 8, "step 8 of 8"))
    printed = progress.console.export_text()
    assert "train: step 8 of 8" in printed and "4 of 8" not in printed
