"""The local backend: stages are subprocesses of the conductor.

A stage dies with its conductor (parent-death signal), so nothing outlives its parent or runs twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from launcher.outcome import Failure, from_exit_code
from launcher.runs.conductor import Ended
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.runs import Attempt
from launcher.system.files import write_atomic
from launcher.system.processes import killed_with_parent
from launcher.targets.local.environment import stage_environment

#: How long a stage has to save its progress after SIGTERM.
GRACE_S = 60.0


class LocalBackend:
    """Stages as subprocesses of this process, together on no more processors than the machine has."""

    def __init__(self, plan: Plan, store: Store, attempt: Attempt, *, cpus: int | None = None) -> None:
        self.plan = plan
        self.store = store
        self.attempt = attempt
        self.cpus = cpus or os.cpu_count() or 1
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._started_at: dict[str, float] = {}
        self._stopped_at: float | None = None
        self._silent: dict[str, Failure] = {}
        self._prepare_child = killed_with_parent()
        self._plan_path = _plan_on_this_machine(plan, attempt)

    @property
    def outlives_conductor(self) -> bool:
        return False

    def adopt(self, stage: Stage, number: int) -> bool:
        return False  # a stage dies with its conductor

    def has_room(self, stage: Stage) -> bool:
        taken = sum(self.plan.stage(name).resources.cpus for name in self._processes)
        return not self._processes or taken + stage.resources.cpus <= self.cpus

    def start(self, stage: Stage, number: int) -> None:
        log_path = self.attempt.log_path(stage.name, number)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **stage_environment(stage, self.store.address),
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
            # Processes that the stage left in its session end with it.
            _signal_group(process, signal.SIGKILL)
            del self._processes[name]
            self._publish_log(name, number)
            silent = self._silent.pop(name, None)
            # It may have ended by itself in the same moment.
            failure = (
                silent if silent is not None and code == -signal.SIGKILL else self._termination(name, number)
            )
            reason = failure.reason if failure else from_exit_code(code)
            ends.append(Ended(name, code, reason, failure))
        return ends

    def started_at(self) -> dict[str, float]:
        now, monotonic = time.time(), time.monotonic()
        return {name: now - (monotonic - self._started_at[name]) for name in self._processes}

    def end_silent(self, stage: str, failure: Failure) -> None:
        self._silent[stage] = failure
        # A stopped process handles no other signal.
        _signal_group(self._processes[stage][0], signal.SIGKILL)

    def stop(self) -> None:
        self._stopped_at = time.monotonic()
        for process, _ in self._processes.values():
            process.terminate()

    def _publish_log(self, name: str, number: int) -> None:
        try:
            self.store.publish(self.attempt.path(f"logs/{name}-t{number}.log"))
        except Failure as failure:
            # The run goes on without it; this warning is in the conductor's own log.
            print(f"warning: the log of {name} was not stored: {failure.what}", file=sys.stderr, flush=True)

    def _termination_path(self, stage: str, number: int) -> Path:
        return self.attempt.log_path(stage, number).with_suffix(".termination.json")

    def _termination(self, stage: str, number: int) -> Failure | None:
        try:
            return Failure.from_message(self._termination_path(stage, number).read_bytes())
        except (OSError, ValueError):
            return None  # killed before it wrote one: the exit code decides


def _plan_on_this_machine(plan: Plan, attempt: Attempt) -> Path:
    """A plan file for the stages: the store's own, or a copy if the store is not on this machine."""
    path = attempt.store.local_path(attempt.path("plan.json"))
    if not path.is_file():
        write_atomic(path, plan.to_bytes())
    return path


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
