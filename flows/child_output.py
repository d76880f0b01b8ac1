"""What a process writes: messages on its standard output, and on its errors whatever libraries and faults write there."""

from __future__ import annotations

import os
import re
import selectors
import subprocess

from flows.orders import Message

MOST_LINES, LONGEST = 1000, 2000  # lines of errors that are passed on for a stage, and characters of each
CHUNK = 1 << 16


class Output:
    """The two pipes of a process. `last_line` is the last one of its errors that is not empty."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout and process.stderr
        self._process, self._messages, self._errors = process, process.stdout, process.stderr
        self._open = selectors.DefaultSelector()
        self._rest = {pipe.fileno(): b"" for pipe in (self._errors, self._messages)}
        for descriptor in self._rest:
            os.set_blocking(descriptor, False)
            self._open.register(descriptor, selectors.EVENT_READ)
        self._lines = 0
        self.last_line = ""

    def begin(self) -> None:
        """A stage begins, with so many lines of its own."""
        self._lines = 0

    def wait(self, seconds: float) -> list[Message] | None:
        """The messages that have come after so long at most, lines of errors first; None when no more can come."""
        if not self._open.get_map():
            return None
        ready = {key.fd for key, _ in self._open.select(seconds)}
        if not ready and self._process.poll() is not None:  # a stranger holds the pipes open
            return None
        lines = {descriptor: self._read(descriptor) if descriptor in ready else [] for descriptor in self._rest}
        errors, messages = lines.values()
        return [message for line in errors for message in self._line(line)] + [Message.read(line) for line in messages]

    def close(self) -> None:
        """Read no more: whoever writes on gets an error."""
        self._open.close()
        self._messages.close()
        self._errors.close()

    def _read(self, descriptor: int) -> list[bytes]:
        """The whole lines that have come; at the end also one that is not."""
        read = os.read(descriptor, CHUNK)
        *lines, rest = (self._rest[descriptor] + read).split(b"\n")
        if not read:
            self._open.unregister(descriptor)
            lines, rest = [*lines, rest] if rest else lines, b""
        self._rest[descriptor] = rest
        return lines

    def _line(self, line: bytes) -> list[Message]:
        text = re.split(r"\r", line.decode(errors="replace").rstrip())[-1].rstrip()[:LONGEST]  # a bar redraws its line
        if not text:
            return []
        self.last_line = text.strip()
        self._lines += 1
        if self._lines > MOST_LINES + 1:
            return []
        return [
            Message(text=text if self._lines <= MOST_LINES else "More lines of this stage's process are not shown.")
        ]
