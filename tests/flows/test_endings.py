"""Commands that are asked to end: what they clean up is cleaned up, and the signal ends them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import endings
from tests.flows.conftest import LONG_SECONDS

CLEANS_UP = """
import sys, time
from pathlib import Path
from flows.endings import in_order
with in_order():
    try:
        print("begun", flush=True)
        print("not flushed")
        time.sleep(600)
    finally:
        Path(sys.argv[1], "cleans up").touch()
        time.sleep(float(sys.argv[2]))
        Path(sys.argv[1], "clean").touch()
"""


def cleaning(folder: Path, seconds: float) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", CLEANS_UP, str(folder), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    return process


def cleans_up(folder: Path) -> None:
    end = time.monotonic() + LONG_SECONDS
    while not (folder / "cleans up").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_twice_at_once_does_not_interrupt_what_is_cleaned_up(again: int, tmp_path: Path) -> None:
    """`timeout` sends its signal to the command, and once more to the command's group."""
    process = cleaning(tmp_path, 0.5)
    process.send_signal(signal.SIGTERM)
    cleans_up(tmp_path)
    process.send_signal(again)
    assert process.wait(LONG_SECONDS) == -signal.SIGTERM
    assert (tmp_path / "clean").exists()


def test_a_later_signal_interrupts_what_takes_too_long(tmp_path: Path) -> None:
    process = cleaning(tmp_path, 600)
    process.send_signal(signal.SIGTERM)
    cleans_up(tmp_path)
    end = time.monotonic() + LONG_SECONDS
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
    assert not (tmp_path / "clean").exists()


def test_the_signal_ends_a_command_whose_output_nobody_reads_any_more(tmp_path: Path) -> None:
    process = cleaning(tmp_path, 0)
    assert process.stdout
    process.stdout.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG_SECONDS) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (256 - signal.SIGKILL, "was killed (SIGKILL), as the kernel does where memory runs out"),
        (256 - signal.SIGABRT, "fault of native code (SIGABRT)"),
        (256 - signal.SIGTERM, "ended by SIGTERM from outside"),
        (3, "ended with code 3"),
        (0, "ended with code 0"),
    ],
)
def test_how_a_process_ended_in_words(code: int, words: str) -> None:
    line = endings.describe_end("train", code, "std::bad_alloc")
    assert words in line and "Run it again" in line and "\n" not in line
    assert ("std::bad_alloc" in line) == ("SIGKILL" not in words)
