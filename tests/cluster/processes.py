"""Background processes, identified by process id and start time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .places import State

_BUSY = 3


class ClusterError(Exception):
    """A failure of the cluster, in one sentence with the place to look."""


def command(*words: str | Path, check: bool = True, timeout_s: float = 600) -> str:
    """Run a short command; its output. Raises ClusterError with its error output."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout_s)
    if check and done.returncode:
        raise ClusterError(
            f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr.strip()[-2000:]}"
        )
    return done.stdout


def wait_for(what: str, condition: Callable[[], object], timeout_s: float, every_s: float = 0.1) -> None:
    """Wait until the condition holds. Raises ClusterError that names it.

    `timeout_s` is for an idle machine; the limit is `_BUSY` times as long.
    """
    deadline = time.monotonic() + _BUSY * timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {_BUSY * timeout_s:.0f} s: {what}")
        time.sleep(every_s)


def started_at(pid: int) -> int | None:
    """The start time of a live process in clock ticks since boot; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def start(
    state: State, name: str, words: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> None:
    """Start a process in a session of its own, its output in `logs/NAME.log`."""
    state.logs.mkdir(parents=True, exist_ok=True)
    state.processes.mkdir(parents=True, exist_ok=True)
    with (state.logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=state.directory,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    record = {"pid": process.pid, "started_at": started_at(process.pid)}
    (state.processes / name).write_text(json.dumps(record))
    process.returncode = 0  # Keeps Popen from warning that the process still runs.


def running(state: State, name: str) -> int | None:
    """The process id of a process that we started and that still runs."""
    try:
        record = json.loads((state.processes / name).read_text())
    except (OSError, ValueError):
        return None
    pid = int(record["pid"])
    _reap(pid)
    begun = started_at(pid)
    return pid if begun is not None and begun == record["started_at"] else None


def log_tail(state: State, name: str, lines: int = 15) -> str:
    try:
        return "\n".join((state.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def await_ready(state: State, name: str, ready: Callable[[], object], timeout_s: float) -> None:
    """Wait until a process is ready. Raises ClusterError with the end of its log if it dies or takes too long."""

    def ready_or_dead() -> bool:
        if running(state, name) is None:
            raise ClusterError(f"{name} has ended; the end of its log:\n{log_tail(state, name)}")
        return bool(ready())

    try:
        wait_for(f"{name} ready", ready_or_dead, timeout_s)
    except ClusterError as error:
        if "not within" in str(error):
            raise ClusterError(f"{error}; the end of its log:\n{log_tail(state, name)}") from None
        raise


def stop(state: State, name: str, grace_s: float = 15) -> None:
    """End one process that we started: SIGTERM, then SIGKILL after `grace_s`."""
    pid = running(state, name)
    if pid is not None:
        end(pid, grace_s)
    (state.processes / name).unlink(missing_ok=True)


def end(pid: int, grace_s: float) -> None:
    """SIGTERM, then SIGKILL after `grace_s` (at once if that is 0). Returns once it is gone."""
    begun = started_at(pid)
    for number in (signal.SIGTERM, signal.SIGKILL) if grace_s else (signal.SIGKILL,):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + (grace_s if number is signal.SIGTERM else 10)
        while time.monotonic() < deadline:
            _reap(pid)
            if begun is None or started_at(pid) != begun:
                return
            time.sleep(0.02)
    raise ClusterError(f"process {pid} does not end")


def _reap(pid: int) -> None:
    """Reap the process if it is a dead child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
