"""The conductor of a local run, inside its own process."""

from __future__ import annotations

import signal
import sys
import traceback

from launcher.outcome import Failure, Reason
from launcher.runs import finalize
from launcher.runs.conductor import Conductor
from launcher.spec.plan import Plan
from launcher.store import Store
from launcher.store.lease import Lease, LeaseLost, acquire, run_lease
from launcher.store.runs import Attempt, read_plan
from launcher.targets.local.backend import LocalBackend


def conduct(store: Store, run_id: str, number: int) -> int:
    """Carry an attempt to its end, or return at once if the run has a live conductor; the exit code is 0 either way.

    An error of the conductor itself closes the attempt: nothing waits for it or restarts it. If another machine has
    taken the run over, this process ends and its stages with it.
    """
    lease = acquire(store, run_lease(run_id), f"the conductor of {run_id}", run=run_id, attempt=number)
    if not isinstance(lease, Lease):
        print(f"{run_id}: process {lease.pid} on {lease.host} conducts it", flush=True)
        return 0
    with lease:
        plan = read_plan(store, run_id, number)
        attempt = Attempt(store, run_id, number).under(lease)
        if attempt.outcome is not None:
            return 0
        try:
            _walk(plan, attempt)
        except LeaseLost as lost:
            print(lost.text(), file=sys.stderr, flush=True)
        except Failure as failure:
            finalize.close_failed(attempt, failure)
        except Exception as error:
            traceback.print_exc()
            internal = Failure(
                Reason.INTERNAL,
                f"the conductor failed: {type(error).__name__}: {error}",
                where=run_id,
                next_step=f"read {store.local_path(attempt.path('logs/conductor.log'))}",
            )
            finalize.close_failed(attempt, internal)
    return 0


def _walk(plan: Plan, attempt: Attempt) -> None:
    store = attempt.store
    conductor = Conductor(plan, store, attempt, LocalBackend(plan, store, attempt))
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: conductor.request_stop())
    outcome = conductor.run()
    if outcome is not None:
        finalize.close(plan, store, attempt, outcome)
    elif attempt.outcome is not None:
        finalize.write_receipt(plan, store, attempt)
