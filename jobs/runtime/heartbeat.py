"""Heartbeats: how far a stage is, as an object in the store and as a line of its log."""

from __future__ import annotations

import sys
import time

from launcher.outcome import Failure
from launcher.store import Store
from launcher.store.records import Heartbeat

#: Shortest time between two heartbeats in the store.
MIN_INTERVAL_S = 1.0


class HeartbeatWriter:
    """Writes the heartbeats of one stage to `path` in the store, at most one per interval."""

    def __init__(self, store: Store, path: str, stage: str) -> None:
        self._store = store
        self._path = path
        self._stage = stage
        self._interval_s = max(MIN_INTERVAL_S, store.poll_interval_s)
        self._started_at = time.monotonic()
        self._written_at = 0.0
        self._written_step = -1
        self._first: tuple[int, float] | None = None

    def write(self, step: int, total: int, unit: str, measures: dict[str, float]) -> None:
        """Write and print a heartbeat if one is due. The first and the last step are always due."""
        now = time.monotonic()
        first_or_last = step in (0, total) and step != self._written_step
        if not first_or_last and now - self._written_at < self._interval_s:
            return
        self._written_at, self._written_step = now, step
        eta_s = self._eta_s(step, total, now)
        heartbeat = Heartbeat(
            stage=self._stage,
            step=step,
            total=total,
            unit=unit,
            elapsed_s=round(now - self._started_at, 1),
            eta_s=None if eta_s is None else round(eta_s, 1),
            measures=measures,
            at=time.time(),
        )
        try:
            self._store.put_json(self._path, heartbeat.to_json(), create_once=False)
        except Failure as failure:
            # A heartbeat is informational: the stage continues without it.
            print(f"warning: heartbeat not stored: {failure.what}", file=sys.stderr, flush=True)
        print(_log_line(heartbeat), flush=True)

    def _eta_s(self, step: int, total: int, now: float) -> float | None:
        # A resumed stage starts above step 0; its speed is measured from there.
        if self._first is None:
            self._first = (step, now)
        first_step, first_at = self._first
        return (now - first_at) / (step - first_step) * (total - step) if step > first_step else None


def _log_line(heartbeat: Heartbeat) -> str:
    measures = "".join(f" {name}={value:.4g}" for name, value in heartbeat.measures.items())
    eta = "" if heartbeat.eta_s is None else f" eta={heartbeat.eta_s:.0f}s"
    return f"{heartbeat.unit} {heartbeat.step}/{heartbeat.total}{measures}{eta}"
