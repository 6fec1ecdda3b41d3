"""Waits while a server is away or busy: growing pauses with jitter, said on stderr, up to a limit."""

from __future__ import annotations

import random
import sys
import threading
import time

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
#: A shorter wait is not worth a message.
_SILENT_S = 3.0
_SAY_EVERY_S = 30.0


class Outage:
    """The waits of all calls to one server, so that many of them at once say one thing. Thread-safe."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said_at: float | None = None

    def wait(self, tries: int, what: str, left_s: float, limit_s: float) -> None:
        """Pause before the next try. `tries` have failed with `what`; `left_s` of `limit_s` remain for this call."""
        now = time.monotonic()
        with self._lock:
            self._since = self._since or now
            away_s = now - self._since
            say = away_s >= _SILENT_S and (self._said_at is None or now - self._said_at >= _SAY_EVERY_S)
            if say:
                self._said_at = now
        if say:
            _print(f"waiting for {self._server}: {what}; for {away_s:.0f} s so far, {limit_s:.0f} s at most")
        longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10))
        # Between half and the whole pause, so that clients do not come back at the same moment.
        time.sleep(max(0.0, min(longest_s * random.uniform(0.5, 1.0), left_s)))

    def is_over(self) -> None:
        """A call was answered."""
        if self._since is None:
            return
        with self._lock:
            since, said, self._since, self._said_at = self._since, self._said_at, None, None
        if said is not None and since is not None:
            _print(f"{self._server} answers again after {time.monotonic() - since:.0f} s")


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
