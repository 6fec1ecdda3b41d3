"""The local backend: stages are subprocesses of a detached conductor, artifacts in a directory.

`ensure_conductor` starts one (`python -m launcher.local`); a lock makes sure that a run has at
most one, so that two submits at once are one run. A stage dies with its conductor (parent-death
signal), so nothing outlives its parent or runs twice.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from launcher import receipt, verdict
from launcher.conductor import Conductor, Ended
from launcher.outcome import Failure, Reason, from_exit_code
from launcher.plan import Plan, Stage
from launcher.runs import Attempt, conductor_alive, lock_path, read_plan
from launcher.store import DirectoryStore, open_store

#: How long a stage has to save its progress after SIGTERM.
GRACE_S = 60.0
_START_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> Callable[[], None] | None:
    """For subprocess's preexec_fn: the kernel kills the child when its parent is gone (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(137)

    return prepare


class LocalBackend:
    """Stages as subprocesses of this process. Uses no more processors than the machine has."""

    def __init__(
        self, plan: Plan, store: DirectoryStore, attempt: Attempt, *, cpus: int | None = None
    ) -> None:
        self.plan = plan
        self.store = store
        self.attempt = attempt
        self.cpus = cpus or os.cpu_count() or 1
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._stopped_at: float | None = None
        self._prepare_child = _die_with_parent()

    def has_room(self, stage: Stage) -> bool:
        taken = sum(self.plan.stage(name).resources.cpus for name in self._processes)
        return not self._processes or taken + stage.resources.cpus <= self.cpus

    def start(self, stage: Stage, number: int) -> None:
        log_path = self.attempt.log_path(stage.name, number)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **_environment(stage),
            "TUNEYARD_TERMINATION_LOG": str(self._termination_path(stage.name, number)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",
        }
        command = [
            *(sys.executable, "-m", "jobs", "run"),
            *("--plan", str(self.store.local_path(f"runs/{self.plan.run_id}/plan.json"))),
            *("--stage", stage.name),
            *("--store", self.store.address),
            *("--attempt", str(self.attempt.number)),
        ]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=self._prepare_child,
            )
        self._processes[stage.name] = (process, number)

    def running(self) -> set[str]:
        return set(self._processes)

    def ended(self) -> list[Ended]:
        if self._stopped_at is not None and time.monotonic() - self._stopped_at > GRACE_S:
            for process, _ in self._processes.values():
                _signal_group(process, signal.SIGKILL)
        ends = []
        for name, (process, number) in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            # What the stage may have left behind in its own session ends with it.
            _signal_group(process, signal.SIGKILL)
            del self._processes[name]
            failure = self._termination(name, number)
            reason = failure.reason if failure else from_exit_code(code)
            ends.append(Ended(name, code, reason, failure))
        return ends

    def stop(self) -> None:
        self._stopped_at = time.monotonic()
        for process, _ in self._processes.values():
            process.terminate()

    def _termination_path(self, stage: str, number: int) -> Path:
        return self.attempt.log_path(stage, number).with_suffix(".termination.json")

    def _termination(self, stage: str, number: int) -> Failure | None:
        try:
            return Failure.from_json(json.loads(self._termination_path(stage, number).read_bytes()))
        except (OSError, ValueError, KeyError):
            return None  # killed before it could say anything: the exit code speaks


#: Secrets, and the stage kinds that need them; no other stage sees them.
_SECRETS: dict[str, tuple[str, ...]] = {
    "HF_TOKEN": ("fetch",),
    "HUGGING_FACE_HUB_TOKEN": ("fetch",),
    "OPENAI_API_KEY": ("tune", "predict"),
    "AWS_ACCESS_KEY_ID": (),
    "AWS_SECRET_ACCESS_KEY": (),
    "AWS_SESSION_TOKEN": (),
}


def _environment(stage: Stage) -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if stage.kind in _SECRETS.get(name, (stage.kind,))
    }


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def ensure_conductor(store: DirectoryStore, run_id: str, attempt: int) -> None:
    """Start a detached conductor for an open attempt, unless one lives. Raises Failure where it cannot start."""
    if conductor_alive(store, run_id):
        return
    log_path = store.local_path(f"runs/{run_id}/attempts/{attempt}/logs/conductor.log")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher.local", store.address, run_id, str(attempt)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if conductor_alive(store, run_id) or Attempt(store, run_id, attempt).outcome is not None:
            return
        if process.poll() not in (None, 0):
            break
        time.sleep(0.02)
    raise Failure(Reason.INTERNAL, "the conductor did not start", where=run_id, next_step=f"read {log_path}")


def conduct(store: DirectoryStore, run_id: str, number: int) -> int:
    """Carry an attempt to its end, as its only conductor; returns at once where another one lives."""
    with store.lock(lock_path(run_id)) as held:
        if not held:
            return 0
        plan = read_plan(store, run_id)
        attempt = Attempt(store, run_id, number)
        if attempt.outcome is not None:
            return 0
        conductor = Conductor(plan, store, attempt, LocalBackend(plan, store, attempt))
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: conductor.request_stop())
        outcome = conductor.run()
        if outcome is None:
            if attempt.outcome is not None:
                # Cancelled: what was spent until then is still owed an account.
                attempt.put("receipt.json", receipt.build(plan, store, attempt))
            return 0
        close(plan, store, attempt, outcome)
    return 0


def close(plan: Plan, store: DirectoryStore, attempt: Attempt, outcome: dict[str, object]) -> None:
    """Write receipt, verdict and report, and last the outcome that closes the attempt."""
    paid = receipt.build(plan, store, attempt)
    attempt.put("receipt.json", paid, create_once=False)
    if outcome["reason"] == Reason.SUCCEEDED.value:
        document = verdict.build(plan, store, paid)
        attempt.put("verdict.json", document, create_once=False)
        store.local_path(attempt.path("report.md")).write_text(verdict.render(document), encoding="utf-8")
    attempt.put("outcome.json", outcome)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m launcher.local", description="Conduct one attempt at a local run."
    )
    parser.add_argument("store")
    parser.add_argument("run_id")
    parser.add_argument("attempt", type=int)
    arguments = parser.parse_args()
    return conduct(open_store(arguments.store), arguments.run_id, arguments.attempt)


if __name__ == "__main__":
    sys.exit(main())
