"""The local backend: stages are subprocesses of a detached conductor, artifacts in a directory.

`ensure_conductor` starts one (`python -m launcher.targets.local`); a lock makes sure that a run has at
most one, so that two submits at once are one run. A stage dies with its conductor (parent-death
signal), so nothing outlives its parent or runs twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from launcher.outcome import Failure, Reason, from_exit_code
from launcher.runs import finalize
from launcher.runs.conductor import Conductor, Ended
from launcher.spec.plan import Plan, Stage
from launcher.store import Store, open_store
from launcher.store.runs import Attempt, conducted_attempt, conductor_alive, lock_path, read_plan
from launcher.system.files import write_atomic
from launcher.system.processes import killed_with_parent

#: How long a stage has to save its progress after SIGTERM.
GRACE_S = 60.0
_START_TIMEOUT_S = 15.0
#: A conductor that is killed while somebody waits for it is started again this often.
_REPLACEMENTS = 3


class LocalBackend:
    """Stages as subprocesses of this process. Uses no more processors than the machine has."""

    def __init__(self, plan: Plan, store: Store, attempt: Attempt, *, cpus: int | None = None) -> None:
        self.plan = plan
        self.store = store
        self.attempt = attempt
        self.cpus = cpus or os.cpu_count() or 1
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._started_at: dict[str, float] = {}
        self._stopped_at: float | None = None
        self._prepare_child = killed_with_parent()
        self._plan_path = _plan_on_this_machine(plan, attempt)

    @property
    def outlives_conductor(self) -> bool:
        return False

    def adopt(self, stage: Stage, number: int) -> bool:
        return False  # a stage's process dies with its conductor

    def has_room(self, stage: Stage) -> bool:
        taken = sum(self.plan.stage(name).resources.cpus for name in self._processes)
        return not self._processes or taken + stage.resources.cpus <= self.cpus

    def start(self, stage: Stage, number: int) -> None:
        log_path = self.attempt.log_path(stage.name, number)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **_environment(stage, self.store),
            "TUNEYARD_TERMINATION_LOG": str(self._termination_path(stage.name, number)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",
        }
        command = [
            *(sys.executable, "-m", "jobs", "run"),
            *("--plan", str(self._plan_path)),
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
        self._started_at[stage.name] = time.monotonic()

    def running(self) -> set[str]:
        return set(self._processes)

    def held_s(self) -> dict[str, float]:
        return {name: time.monotonic() - self._started_at[name] for name in self._processes}

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
            self._publish_log(name, number)
            failure = self._termination(name, number)
            reason = failure.reason if failure else from_exit_code(code)
            ends.append(Ended(name, code, reason, failure))
        return ends

    def stop(self) -> None:
        self._stopped_at = time.monotonic()
        for process, _ in self._processes.values():
            process.terminate()

    def _publish_log(self, name: str, number: int) -> None:
        try:
            self.store.publish(self.attempt.path(f"logs/{name}-t{number}.log"))
        except Failure as failure:
            # A log that only this machine has is no reason to end the run; this line is in the conductor's.
            print(f"warning: the log of {name} was not stored: {failure.what}", file=sys.stderr, flush=True)

    def _termination_path(self, stage: str, number: int) -> Path:
        return self.attempt.log_path(stage, number).with_suffix(".termination.json")

    def _termination(self, stage: str, number: int) -> Failure | None:
        try:
            return Failure.from_json(json.loads(self._termination_path(stage, number).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # killed before it could say anything: the exit code speaks


#: Secrets, and the stage kinds that need them; no other stage sees them.
_SECRETS: dict[str, tuple[str, ...]] = {
    "HF_TOKEN": ("fetch",),
    "HUGGING_FACE_HUB_TOKEN": ("fetch",),
    "OPENAI_API_KEY": ("tune", "predict"),
}
#: The store's secrets: only for stages that must reach it by themselves.
_STORE_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def _environment(stage: Stage, store: Store) -> dict[str, str]:
    withheld = () if store.address.startswith("s3:") else _STORE_SECRETS
    return {
        name: value
        for name, value in os.environ.items()
        if name not in withheld and stage.kind in _SECRETS.get(name, (stage.kind,))
    }


def _plan_on_this_machine(plan: Plan, attempt: Attempt) -> Path:
    """A file with the plan for the stages to read: the store's own, or a copy where the store is elsewhere."""
    path = attempt.store.local_path(attempt.path("plan.json"))
    if not path.is_file():
        write_atomic(path, plan.to_bytes())
    return path


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def start(attempt: Attempt) -> None:
    """Make sure that a conductor carries on the attempt, if it is open."""
    if attempt.outcome is None:
        ensure_conductor(attempt.store, attempt.run_id, attempt.number)


def ensure_conductor(store: Store, run_id: str, attempt: int) -> None:
    """Start a detached conductor for an open attempt, unless one lives. Raises Failure where it cannot start.

    Waits for the conductor of an earlier attempt that is still stopping its stages.
    """
    log_path = store.local_path(f"runs/{run_id}/attempts/{attempt}/logs/conductor.log")
    started: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + _START_TIMEOUT_S
    last_deadline = deadline + GRACE_S + _START_TIMEOUT_S
    while Attempt(store, run_id, attempt).outcome is None:
        holder = conducted_attempt(store, run_id)
        if holder == attempt:
            return
        if holder is not None and holder < attempt:
            deadline = min(time.monotonic() + _START_TIMEOUT_S, last_deadline)
        elif started is None or started.poll() == 0:
            started = _start_conductor(store, run_id, attempt, log_path)
        if (started is not None and started.poll()) or time.monotonic() > deadline:
            raise Failure(
                Reason.INTERNAL, "the conductor did not start", where=run_id, next_step=f"read {log_path}"
            )
        time.sleep(0.02)


class Supervision:
    """Whoever waits for an attempt looks after its conductor: one that was killed is replaced, but not for ever."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.replaced = 0

    def look(self) -> None:
        """Replace the conductor if it is gone. Raises Failure(KILLED) where it dies again and again."""
        store, run_id = self.attempt.store, self.attempt.run_id
        if conductor_alive(store, run_id) or self.attempt.outcome is not None:
            return
        if self.replaced == _REPLACEMENTS:
            raise Failure(
                Reason.KILLED,
                "the conductor was killed again and again",
                where=run_id,
                next_step="free memory, then submit again: finished stages are kept",
            )
        self.replaced += 1
        ensure_conductor(store, run_id, self.attempt.number)


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


def conduct(store: Store, run_id: str, number: int) -> int:
    """Carry an attempt to its end, as its only conductor; returns at once where another one lives.

    What breaks the conductor itself closes the attempt too: nobody shall wait for it, or start it over and over.
    """
    with contextlib.ExitStack() as stack:
        if not any(_tries_to_hold(stack, store, run_id)):
            return 0
        store.local_path(lock_path(run_id)).write_text(str(number), encoding="ascii")
        plan = read_plan(store, run_id, number)
        attempt = Attempt(store, run_id, number)
        if attempt.outcome is not None:
            return 0
        try:
            _walk(plan, store, attempt)
        except Failure as failure:
            finalize.close_broken(attempt, failure)
        except Exception as error:
            traceback.print_exc()
            internal = Failure(
                Reason.INTERNAL,
                f"the conductor failed: {type(error).__name__}: {error}",
                where=run_id,
                next_step=f"read {store.local_path(attempt.path('logs/conductor.log'))}",
            )
            finalize.close_broken(attempt, internal)
    return 0


def _tries_to_hold(stack: contextlib.ExitStack, store: Store, run_id: str) -> Iterator[bool]:
    """Somebody who only asks whether a conductor lives holds the lock as well, for some microseconds."""
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
        # Cancelled: what was spent until then is still owed an account.
        finalize.settle(plan, store, attempt)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m launcher.targets.local", description="Conduct one attempt at a local run."
    )
    parser.add_argument("store")
    parser.add_argument("run_id")
    parser.add_argument("attempt", type=int)
    arguments = parser.parse_args()
    try:
        return conduct(open_store(arguments.store), arguments.run_id, arguments.attempt)
    except Failure as failure:
        print(failure.text(), file=sys.stderr)
        return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
