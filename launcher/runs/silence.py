"""Finds running stages that have stopped writing heartbeats, so that the conductor ends their try.

A stage is silent if it has made progress in this process and its heartbeat has then not changed for longer than its
limit, by the conductor's own clock. Loading and committing do not count: before its first progress and after its last
step a stage may be quiet. So a stage that hangs while it loads or commits is not found here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from launcher.outcome import Failure, Reason
from launcher.spec.plan import Plan, Stage
from launcher.spec.stages import StageKind
from launcher.store.records import Heartbeat
from launcher.store.runs import Attempt

#: How long a stage may be silent, by kind: a validation pass, a batch of long answers, a queue at a service.
LIMITS_S: dict[StageKind, float] = {
    "fetch": 1800,
    "prepare": 1800,
    "train": 3600,
    "tune": 43200,
    "predict": 3600,
    "score": 3600,
    "report": 3600,
}
#: A stage whose single steps are slow may be silent for this many of them.
_STEPS = 20
#: Replaces the limits above, for all kinds: seconds.
LIMIT_VARIABLE = "TUNEYARD_HEARTBEAT_LIMIT_S"
#: How often heartbeats are read, at most.
_INTERVAL_S = 60.0


@dataclass
class _Seen:
    """The newest heartbeat of a stage, and when the conductor first saw it."""

    heartbeat: Heartbeat
    since: float


class SilentStages:
    """The heartbeats of the running stages, as the conductor sees them."""

    def __init__(self, plan: Plan, attempt: Attempt, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._attempt = attempt
        self._clock = clock
        self._override_s = _override_s()
        limits = [self._override_s] if self._override_s else LIMITS_S.values()
        self._interval_s = min(_INTERVAL_S, min(limits) / 4)
        self._looked_at = clock()
        self._seen: dict[str, _Seen] = {}

    def find(self, started_at: Callable[[], dict[str, float]]) -> dict[str, Failure]:
        """Stage -> why its try must end; looks at intervals only. `started_at` is the backend's."""
        now = self._clock()
        if now < self._looked_at + self._interval_s:
            return {}
        self._looked_at = now
        processes = started_at()
        for gone in self._seen.keys() - processes.keys():
            del self._seen[gone]
        found = {name: self._check(self._plan.stage(name), since, now) for name, since in processes.items()}
        return {name: failure for name, failure in found.items() if failure is not None}

    def _check(self, stage: Stage, started_at: float, now: float) -> Failure | None:
        heartbeat = self._attempt.heartbeat(stage.name)
        if heartbeat is None or heartbeat.at < started_at:
            return None  # it is loading: the heartbeat is of an earlier process
        seen = self._seen.get(stage.name)
        if seen is None or seen.heartbeat != heartbeat:
            self._seen[stage.name] = _Seen(heartbeat, now)
            return None
        silent_s = now - seen.since
        if not _is_under_way(heartbeat) or silent_s <= self._limit_s(stage, heartbeat):
            return None
        return Failure(
            Reason.NO_HEARTBEAT,
            f"no heartbeat for {silent_s:.0f} s, since {heartbeat.unit} {heartbeat.step} of {heartbeat.total}",
            where=stage.name,
        )

    def _limit_s(self, stage: Stage, heartbeat: Heartbeat) -> float:
        if self._override_s:
            return self._override_s
        step_s = (heartbeat.eta_s or 0.0) / max(1, heartbeat.total - heartbeat.step)
        return max(LIMITS_S[stage.kind], _STEPS * step_s)


def _is_under_way(heartbeat: Heartbeat) -> bool:
    """Between its first progress and its last step: only then is there an estimate of the rest."""
    return heartbeat.eta_s is not None and heartbeat.step < heartbeat.total


def _override_s() -> float:
    """Raises Failure(USAGE) unless the variable is unset or a positive number."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        value = float(text) if text else 0.0
    except ValueError:
        value = -1.0
    if text and not 0 < value < float("inf"):
        raise Failure(Reason.USAGE, "must be a number of seconds above 0", where=LIMIT_VARIABLE)
    return value
