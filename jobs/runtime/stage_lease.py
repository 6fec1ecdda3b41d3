"""The lease of a stage: waits while another process, perhaps of another run, works on the same stage."""

from __future__ import annotations

import threading
import time

from jobs.runtime.heartbeat import HeartbeatWriter
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.lease import Lease, acquire, stage_lease

#: How often a waiting stage looks at the lease, in polls of the store.
_POLLS = 2


def wait_for_stage(
    plan: Plan, stage: Stage, store: Store, attempt: int, *, lease_s: float, stop: threading.Event
) -> Lease | None:
    """The lease of the stage, not entered yet; None if the stage was committed meanwhile, or `stop` is set."""
    path = f"runs/{plan.run_id}/attempts/{attempt}/heartbeats/{stage.name}.json"
    heartbeats = HeartbeatWriter(store, path, stage.name)
    started_at = time.monotonic()
    said = ""
    while not stop.is_set():
        got = acquire(
            store, stage_lease(stage.key), stage.name, run=plan.run_id, attempt=attempt, lease_s=lease_s
        )
        if store.exists(f"stages/{stage.key}"):
            if isinstance(got, Lease):
                got.release()
            return None
        if isinstance(got, Lease):
            return got
        if got.holder != said:
            said = got.holder
            print(
                f"{stage.name}: waiting for process {got.pid} on {got.host}, which works on this stage for "
                f"{got.run}, attempt {got.attempt}",
                flush=True,
            )
        waited_s = int(time.monotonic() - started_at)
        heartbeats.write(waited_s, 0, "s waiting for another process", {})
        stop.wait(_POLLS * store.poll_interval_s)
    return None
