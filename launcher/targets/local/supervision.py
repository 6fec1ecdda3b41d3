"""Restarts a local run's conductor while a caller waits for the run."""

from __future__ import annotations

from launcher.outcome import Failure, Reason
from launcher.store.runs import Attempt
from launcher.targets.local.detached import ensure_conductor

#: How often a killed conductor is restarted.
_RESTARTS = 3


class ConductorSupervision:
    """Replaces the conductor of one attempt if it was killed, a few times."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.restarts = 0

    def look(self) -> None:
        """Restart the conductor if it is gone. Raises Failure(KILLED) once the restarts are used up."""
        store, run_id = self.attempt.store, self.attempt.run_id
        if self.attempt.has_live_conductor or self.attempt.outcome is not None:
            return
        if self.restarts == _RESTARTS:
            raise Failure(
                Reason.KILLED,
                f"the conductor was killed {_RESTARTS + 1} times",
                where=run_id,
                next_step="free memory, then submit again: finished stages are kept",
            )
        self.restarts += 1
        ensure_conductor(store, run_id, self.attempt.number)
