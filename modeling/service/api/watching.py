"""What changes outside is looked at every few seconds: the pointer, and files."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from schemas.errors import AwayError, InputError

log = logging.getLogger("overnight.api")


class Watch:
    """Calls each of some functions every so many seconds, in a thread of its own."""

    def __init__(self, looks: Sequence[Callable[[], object]], seconds: float) -> None:
        self._looks, self._seconds = looks, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._said: dict[int, str] = {}

    @property
    def faults(self) -> list[str]:
        """What could not be read when it was last looked at."""
        return list(self._said.values())

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            for number, look in enumerate(self._looks):
                self._look(number, look)

    def _look(self, number: int, look: Callable[[], object]) -> None:
        """What cannot be read now is as it was before; that is said once."""
        try:
            look()
            self._said.pop(number, None)
        except (InputError, AwayError, OSError) as error:
            if self._said.get(number) != str(error):
                self._said[number] = str(error)
                log.error("%s (it stays as it was before)", error)
        except Exception:
            log.exception("looking for changes failed")
