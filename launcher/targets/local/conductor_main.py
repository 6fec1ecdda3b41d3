"""The conductor of a local run, inside its own process."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
from collections.abc import Iterator

from launcher.outcome import Failure, Reason
from launcher.runs import finalize
from launcher.runs.conductor import Conductor
from launcher.spec.plan import Plan
from launcher.store import Store
from launcher.store.runs import Attempt, lock_path, read_plan
from launcher.targets.local.backend import LocalBackend


def conduct(store: Store, run_id: str, number: int) -> int:
    """Carry an attempt to its end, or return at once if the run has a live conductor; the exit code is 0 either way.

    An error of the conductor itself closes the attempt: nothing waits for it or restarts it.
    """
    with contextlib.ExitStack() as stack:
        if not any(_lock_tries(stack, store, run_id)):
            return 0
        store.local_path(lock_path(run_id)).write_text(str(number), encoding="ascii")
        plan = read_plan(store, run_id, number)
        attempt = Attempt(store, run_id, number)
        if attempt.outcome is not None:
            return 0
        try:
            _walk(plan, store, attempt)
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


def _lock_tries(stack: contextlib.ExitStack, store: Store, run_id: str) -> Iterator[bool]:
    """Try for the run's lock, several times: a check for a live conductor holds it too, for microseconds."""
    for _ in range(10):
        yield stack.enter_context(store.lock(lock_path(run_id)))
        time.sleep(0.02)


def _walk(plan: Plan, store: Store, attempt: Attempt) -> None:
    conductor = Conductor(plan, store, attempt, LocalBackend(plan, store, attempt))
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: conductor.request_stop())
    outcome = conductor.run()
    if outcome is not None:
        finalize.close(plan, store, attempt, outcome)
    elif attempt.outcome is not None:
        finalize.write_receipt(plan, store, attempt)
