"""A limit on bytes per second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """At most `bytes_per_s` over time, for all threads together; None: no limit."""

    def __init__(
        self,
        bytes_per_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock, self._sleep = clock, sleep
        self._free_at = clock()
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until `size` more bytes may move."""
        if not self.bytes_per_s:
            return
        with self._lock:
            starts = max(self._free_at, self._clock())
            self._free_at = starts + size / self.bytes_per_s
        wait = starts - self._clock()
        if wait > 0:
            self._sleep(wait)
