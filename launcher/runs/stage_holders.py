"""Stages that a process of another run works on: this run waits for them and uses what they commit."""

from __future__ import annotations

from collections.abc import Callable

from launcher.spec.plan import Stage
from launcher.store import Store
from launcher.store.lease import holder_of, stage_lease
from launcher.store.records import LeaseHolder

#: How often the lease of a stage that another run holds is read.
_INTERVAL_S = 5.0


class StageHolders:
    """The leases of stages as one run's conductor sees them."""

    def __init__(self, store: Store, run_id: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._run_id = run_id
        self._clock = clock
        self._held: dict[str, tuple[float, LeaseHolder]] = {}

    def other(self, stage: Stage) -> LeaseHolder | None:
        """The process of another run that works on the stage; None if there is none."""
        read_at, holder = self._held.get(stage.name, (0.0, None))
        if holder is not None and self._clock() - read_at < _INTERVAL_S:
            return holder
        newest = holder_of(self._store, stage_lease(stage.key))
        if newest is None or newest.run == self._run_id:
            self._held.pop(stage.name, None)
            return None
        if holder is None or holder.holder != newest.holder:
            print(
                f"{stage.name}: waiting for {newest.run}, which works on the same stage on {newest.host}",
                flush=True,
            )
        self._held[stage.name] = (self._clock(), newest)
        return newest
