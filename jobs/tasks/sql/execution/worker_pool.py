"""A pool of sandboxed worker processes. A worker that dies costs one job; the others in its batch run again.

Jobs are pure functions, so results depend neither on the number of workers nor on their deaths. The pool
uses one thread: a worker dies with the thread that started it (see worker.py).
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
from typing import Any, TypeVar

from jobs.tasks.sql.execution import worker
from jobs.tasks.sql.execution.records import Job

#: Jobs sent to a worker at once: enough that it seldom waits, few enough that all workers finish together.
_BATCH_JOBS = 32
#: Seconds to wait for more results before reading: a wakeup for each result would cost more CPU than most queries.
_GATHER_S = 0.002
_READ_BYTES = 1 << 16
#: A worker that writes more without a newline is killed.
_MAX_RESULT_BYTES = 64 << 20
_START = (
    "import sys; sys.path[:] = {path!r}; "
    "from jobs.tasks.sql.execution.worker import main; main({parent}, {memory})"
)


@dataclass(frozen=True)
class LostJob:
    """Instead of the result of a job whose worker died; `reason` says why."""

    reason: str


R = TypeVar("R")


class _Worker:
    """A sandboxed process, and the indices of the jobs sent to it that have no result yet."""

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
        self.pending: deque[int] = deque()
        self.last_output_s = time.monotonic()

    def fileno(self) -> int:
        return self._out.fileno()

    def input_fileno(self) -> int:
        return self._in.fileno()

    def send(self, indices: Sequence[int], jobs: Sequence[Job[Any]]) -> None:
        """Send a batch: now what the pipe takes, the rest by `send_rest`."""
        if not self.pending:
            self.last_output_s = time.monotonic()
        self.pending.extend(indices)
        batch = marshal.dumps([jobs[index].to_json() for index in indices])
        self.unsent += worker.LENGTH.pack(len(batch)) + batch
        self.send_rest()

    def send_rest(self) -> None:
        """Send more of the batch without blocking: the worker may be blocked until its results are read."""
        try:
            del self.unsent[: self._in.write(self.unsent) or 0]
        except BrokenPipeError:
            self.unsent.clear()  # the process is gone; `receive` reports it

    def receive(self) -> list[Any] | None:
        """The results that arrived since the last call, as JSON values; None if the process is gone."""
        data = os.read(self.fileno(), _READ_BYTES)
        if not data or len(self._buffer) > _MAX_RESULT_BYTES:
            return None
        self.last_output_s = time.monotonic()
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        return [json.loads(line)["value"] for line in lines]

    def end(self) -> int:
        """Kill the process and wait for it. Returns its exit code as subprocess gives it."""
        self.process.kill()
        code = self.process.wait()
        self._in.close()
        self._out.close()
        return code


class WorkerPool:
    """Sandboxed workers, started on demand; a context manager that kills them on exit.

    A worker is killed by the kernel past its job's CPU limit, and by the pool after `wall_s` seconds without
    output: this is for jobs that sleep, and far above any CPU limit because the machine may be busy.
    Raises ValueError if `workers` is less than 1.
    """

    def __init__(
        self,
        workers: int,
        *,
        wall_s: float = 600.0,
        memory_bytes: int = worker.MEMORY_BYTES,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self.workers = workers
        self._wall_s, self._memory_bytes = wall_s, memory_bytes
        self._alive: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        while self._alive:
            self._alive.pop().end()

    def pids(self) -> list[int]:
        """The process ids of the live workers."""
        return [process.process.pid for process in self._alive]

    def map(
        self, jobs: Sequence[Job[R]], done: Callable[[int], None] | None = None, *, batch: int = _BATCH_JOBS
    ) -> list[R | LostJob]:
        """A result per job, in order. `done` is called repeatedly with the number of finished jobs."""
        results: list[R | LostJob] = [LostJob("")] * len(jobs)
        size = max(1, min(batch, -(-len(jobs) // (4 * self.workers))))
        waiting = deque(range(start, min(start + size, len(jobs))) for start in range(0, len(jobs), size))
        finished = 0
        while finished < len(jobs):
            self._feed(waiting, jobs, size)
            busy = {process.fileno(): process for process in self._alive if process.pending}
            taking = {process.input_fileno(): process for process in busy.values() if process.unsent}
            readable, writable, _ = select.select(busy, taking, [], 1.0)
            for fileno in writable:
                taking[fileno].send_rest()
            if any(len(busy[fileno].pending) > 1 for fileno in readable):
                time.sleep(_GATHER_S)
            for fileno in readable:
                process = busy[fileno]
                values = process.receive()
                if values is None:
                    finished += self._lose(process, waiting, results, "")
                    continue
                for value in values:
                    index = process.pending.popleft()
                    results[index] = jobs[index].read_result(value)
                finished += len(values)
            now = time.monotonic()
            for process in [p for p in self._alive if p.pending and now - p.last_output_s > self._wall_s]:
                finished += self._lose(process, waiting, results, "too slow: killed at the time limit")
            if done is not None:
                done(finished)
        return results

    def _feed(self, waiting: deque[Any], jobs: Sequence[Job[Any]], size: int) -> None:
        """Send each worker its next batch before it finishes the last; start workers while batches wait."""
        free = sorted((p for p in self._alive if len(p.pending) <= size), key=lambda p: -len(p.pending))
        while waiting:
            if len(self._alive) < self.workers and not (free and not free[-1].pending):
                free.append(_Worker(self._memory_bytes))
                self._alive.append(free[-1])
            if not free:
                return
            free.pop().send(waiting.popleft(), jobs)

    def _lose(self, process: _Worker, waiting: deque[Any], results: list[Any], reason: str) -> int:
        """Remove a worker: its current job is lost, the rest of its batch waits again. Returns the jobs lost."""
        self._alive.remove(process)
        code = process.end()
        current = process.pending.popleft() if process.pending else None
        if process.pending:
            waiting.appendleft(list(process.pending))
        if current is None:
            return 0
        results[current] = LostJob(reason or _cause(code))
        return 1


def _cause(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "too slow: killed at the CPU limit"
    if code == worker.OUT_OF_MEMORY_EXIT:
        return "too large: out of memory"
    return f"ended its process (exit {code})"
