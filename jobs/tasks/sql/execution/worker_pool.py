"""The parent's side of the sandbox: a few workers, batches of jobs, one lost worker costs one job.

Jobs are pure functions of their content, so the results are the same however many workers there
are and however often one of them dies. One thread does it all: a worker dies with the thread that
started it (see worker.py).
"""

from __future__ import annotations

import json
import marshal
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.tasks.sql.execution import worker

#: Jobs handed to a worker at once: enough that it seldom waits, few enough that all workers end together.
_BATCH_JOBS = 32
#: Results are collected for so long: being woken for each of them costs the parent, and thus the workers, more
#: than most queries do.
_GATHER_S = 0.002
_READ_BYTES = 1 << 16
#: A result longer than this is not one of ours.
_MAX_RESULT_BYTES = 64 << 20
_START = (
    "import sys; sys.path[:] = {path!r}; "
    "from jobs.tasks.sql.execution.worker import main; main({parent}, {memory})"
)


@dataclass(frozen=True)
class LostJob:
    """What a job gets whose worker died or was killed."""

    reason: str


Result = Any | LostJob


class _Worker:
    """One sandboxed process and the indices of the jobs it still owes."""

    def __init__(self, memory_bytes: int) -> None:
        start = _START.format(path=sys.path, parent=os.getpid(), memory=memory_bytes)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        os.set_blocking(self._in.fileno(), False)
        self._buffer = bytearray()
        self.unsent = bytearray()
        self.owed: deque[int] = deque()
        self.last_sign = time.monotonic()

    def fileno(self) -> int:
        return self._out.fileno()

    def input_fileno(self) -> int:
        return self._in.fileno()

    def send(self, indices: Sequence[int], jobs: Sequence[Any]) -> None:
        """Hand over a batch, as much of it as the pipe takes; the rest goes by `send_rest`."""
        if not self.owed:
            self.last_sign = time.monotonic()
        self.owed.extend(indices)
        batch = marshal.dumps([jobs[index] for index in indices])
        self.unsent += worker.LENGTH.pack(len(batch)) + batch
        self.send_rest()

    def send_rest(self) -> None:
        """Go on handing over. Never waits: a worker may be waiting itself, for its results to be read."""
        try:
            del self.unsent[: self._in.write(self.unsent) or 0]
        except BrokenPipeError:
            self.unsent.clear()  # the process is gone: reading from it says so

    def receive(self) -> list[Any] | None:
        """What has arrived since, a value per finished job; None where the process is gone."""
        data = os.read(self.fileno(), _READ_BYTES)
        if not data or len(self._buffer) > _MAX_RESULT_BYTES:
            return None
        self.last_sign = time.monotonic()
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        return [json.loads(line)["value"] for line in lines]

    def end(self) -> int:
        """Kill it, wait for it, and say how it ended (subprocess's convention)."""
        self.process.kill()
        code = self.process.wait()
        self._in.close()
        self._out.close()
        return code


class WorkerPool:
    """Sandboxed workers; a context manager that leaves none behind.

    A job is a JSON object with its "task" and "cpu_s", the CPU seconds after which the kernel ends
    its process. `wall_s` without a sign from a worker ends it too: far above any `cpu_s`, for a
    machine may be busy; it is for jobs that sleep.
    """

    def __init__(
        self,
        workers: int,
        *,
        wall_s: float = 600.0,
        memory_bytes: int = worker.MEMORY_BYTES,
    ) -> None:
        if workers < 1:
            raise ValueError("a pool needs a worker")
        self.workers = workers
        self._wall_s, self._memory_bytes = wall_s, memory_bytes
        self._alive: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        while self._alive:
            self._alive.pop().end()

    def pids(self) -> list[int]:
        """The process ids of the workers there are now."""
        return [process.process.pid for process in self._alive]

    def map(
        self, jobs: Sequence[Any], done: Callable[[int], None] | None = None, *, batch: int = _BATCH_JOBS
    ) -> list[Result]:
        """A result per job, in order. `done` is told now and then how many jobs are finished."""
        results: list[Result] = [None] * len(jobs)
        size = max(1, min(batch, -(-len(jobs) // (4 * self.workers))))
        waiting = deque(range(start, min(start + size, len(jobs))) for start in range(0, len(jobs), size))
        finished = 0
        while finished < len(jobs):
            self._feed(waiting, jobs, size)
            busy = {process.fileno(): process for process in self._alive if process.owed}
            taking = {process.input_fileno(): process for process in busy.values() if process.unsent}
            readable, writable, _ = select.select(busy, taking, [], 1.0)
            for fileno in writable:
                taking[fileno].send_rest()
            if any(len(busy[fileno].owed) > 1 for fileno in readable):
                time.sleep(_GATHER_S)
            for fileno in readable:
                process = busy[fileno]
                values = process.receive()
                if values is None:
                    finished += self._lose(process, waiting, results, "")
                    continue
                for value in values:
                    results[process.owed.popleft()] = value
                finished += len(values)
            now = time.monotonic()
            for process in [p for p in self._alive if p.owed and now - p.last_sign > self._wall_s]:
                finished += self._lose(process, waiting, results, "too slow: killed at the time limit")
            if done is not None:
                done(finished)
        return results

    def _feed(self, waiting: deque[Any], jobs: Sequence[Any], size: int) -> None:
        """Give every worker its next batch before it ends its last; start workers while there is work for them."""
        free = sorted((p for p in self._alive if len(p.owed) <= size), key=lambda p: -len(p.owed))
        while waiting:
            if len(self._alive) < self.workers and not (free and not free[-1].owed):
                free.append(_Worker(self._memory_bytes))
                self._alive.append(free[-1])
            if not free:
                return
            free.pop().send(waiting.popleft(), jobs)

    def _lose(self, process: _Worker, waiting: deque[Any], results: list[Result], reason: str) -> int:
        """Bury a worker: the job it was at is lost, those behind it wait again. Returns the jobs finished by that."""
        self._alive.remove(process)
        code = process.end()
        culprit = process.owed.popleft() if process.owed else None
        if process.owed:
            waiting.appendleft(list(process.owed))
        if culprit is None:
            return 0
        results[culprit] = LostJob(reason or _cause(code))
        return 1


def _cause(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "too slow: killed at the CPU limit"
    if code == worker.OUT_OF_MEMORY_EXIT:
        return "too large: out of memory"
    return f"ended its process (exit {code})"
