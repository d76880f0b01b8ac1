"""How often each key may ask: a bucket of requests that fills at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budgets:
    """`burst` requests at once, and on the average `rate` a second, for each key on its own."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """Take one request of a key's; 0, or in how many seconds there will be one to take."""
        if not self.rate:
            return 0.0
        now = self.clock()
        left, when = self._left.get(key, (float(self.burst), now))
        left = min(float(self.burst), left + (now - when) * self.rate)
        allowed = left >= 1
        self._left[key] = (left - allowed, now)
        return 0.0 if allowed else (1 - left) / self.rate
