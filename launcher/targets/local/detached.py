"""Starts a local run's conductor as a detached process (`python -m launcher.targets.local`).

A lease in the store makes it the only one of its run, so that two submits at once are one run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.store import Store
from launcher.store.runs import Attempt, conductor_of
from launcher.targets.local.backend import GRACE_S

_START_TIMEOUT_S = 15.0


def ensure_conductor(store: Store, run_id: str, attempt: int) -> None:
    """Start a detached conductor for an attempt that is open and has none. Raises Failure if it does not start.

    Waits until the conductor of an earlier attempt has stopped its stages.
    """
    log_path = store.local_path(f"runs/{run_id}/attempts/{attempt}/logs/conductor.log")
    started: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + _START_TIMEOUT_S
    last_deadline = deadline + GRACE_S + _START_TIMEOUT_S
    while Attempt(store, run_id, attempt).outcome is None:
        holder = conductor_of(store, run_id)
        if holder is not None and holder.attempt == attempt:
            return
        if holder is not None and holder.attempt < attempt:
            deadline = min(time.monotonic() + _START_TIMEOUT_S, last_deadline)
        elif started is None or started.poll() == 0:
            started = _start_conductor(store, run_id, attempt, log_path)
        if (started is not None and started.poll()) or time.monotonic() > deadline:
            raise Failure(
                Reason.INTERNAL, "the conductor did not start", where=run_id, next_step=f"read {log_path}"
            )
        time.sleep(0.02)


def _start_conductor(store: Store, run_id: str, attempt: int, log_path: Path) -> subprocess.Popen[bytes]:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "launcher.targets.local", store.address, run_id, str(attempt)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
