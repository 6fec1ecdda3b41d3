"""The training workers of this machine: one process each, supervised by the stage's process.

The kernel kills a worker when the stage's process dies. If one worker fails, the pool kills the others,
which would wait for it forever. Only the stage's process uses the store: worker 0 reports on a pipe
(`worker_reports`). Workers of one machine rendezvous through a file, those of several nodes over TCP.
"""

from __future__ import annotations

import io
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType

from jobs.methods.rendezvous import Rendezvous, root_cause
from jobs.methods.training_job import Reporter, StoppedAtStep, TrainingJob, to_json
from jobs.methods.worker_reports import CheckpointReport, HeartbeatReport, MeasuredReport, from_line
from launcher.outcome import DISPOSITIONS, Failure, Reason, from_exit_code
from launcher.system.processes import killed_with_parent

_POLL_S = 0.2
#: Exit code of a worker that stopped on request.
STOPPED = DISPOSITIONS[Reason.TERMINATED].exit_code
_WORKER = (sys.executable, "-m", "jobs.methods.worker")


class WorkerPool:
    """`count` workers of a job, with ranks from `first_rank`; a context manager that starts and kills them."""

    def __init__(
        self, job: TrainingJob, *, count: int, first_rank: int = 0, command: Sequence[str] = _WORKER
    ) -> None:
        """`command` gets JOB RANK LOCAL_RANK REPORT_FD as arguments."""
        self._command = command
        self._job = job
        self._ranks = range(first_rank, first_rank + count)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._failure: Failure | None = None
        self._stopping = False

    def __enter__(self) -> WorkerPool:
        path = self._job.scratch / "job.json"
        path.write_text(to_json(self._job), encoding="utf-8")
        read_end, write_end = os.pipe()
        self._reports = os.fdopen(read_end, "rb", buffering=0)
        os.set_blocking(read_end, False)
        try:
            for local_rank, rank in enumerate(self._ranks):
                numbers = (str(rank), str(local_rank), str(write_end))
                self._workers.append(_start([*self._command, str(path), *numbers], write_end))
        except BaseException:
            self._kill()
            raise
        finally:
            os.close(write_end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
        self._reports.close()

    def wait(self, reporter: Reporter, rendezvous: Rendezvous | None = None) -> None:
        """Forward reports until all workers ended.

        Raises the failure of a worker or of another node, or StoppedAtStep.
        """
        try:
            self._end(self._forward(reporter, rendezvous))
        except Failure as failure:
            raise (root_cause(failure, rendezvous) if rendezvous else failure) from None

    def _forward(self, reporter: Reporter, rendezvous: Rendezvous | None) -> list[int | None]:
        """The workers' exit codes, once all ended or one failed; None for one that still runs."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reports, selectors.EVENT_READ)
            pending = b""
            while True:
                selector.select(_POLL_S)
                pending = self._handle(pending + _available(self._reports), reporter)
                if reporter.stop_requested and not self._stopping:
                    self._stop()
                if rendezvous:
                    rendezvous.check()
                codes = [worker.poll() for worker in self._workers]
                if None not in codes or any(code not in (None, 0, STOPPED) for code in codes):
                    break
        self._handle(pending + _available(self._reports), reporter)
        return codes

    def _handle(self, data: bytes, reporter: Reporter) -> bytes:
        """Forward every complete line of `data`; return the rest."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            report = from_line(line)
            if isinstance(report, HeartbeatReport):
                reporter.heartbeat(report.step, report.total, report.measures)
            elif isinstance(report, CheckpointReport):
                reporter.checkpoint(report.directory, report.step)
            elif isinstance(report, MeasuredReport):
                reporter.measured(report.facts)
            else:
                self._failure = self._failure or report.failure
        return rest

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)

    def _end(self, codes: list[int | None]) -> None:
        if self._failure:
            raise self._failure
        for number, code in enumerate(codes):
            if code not in (None, 0, STOPPED):
                reason = Reason.KILLED if from_exit_code(code) is Reason.KILLED else Reason.INTERNAL
                raise Failure(reason, f"worker {number} of {len(codes)} ended with code {code}")
        if STOPPED in codes:
            raise StoppedAtStep


def _start(command: list[str], write_end: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(write_end,),
        preexec_fn=killed_with_parent(),
        # Its own process group: a signal to the stage's group must not interrupt a step.
        process_group=0,
    )


def _available(stream: io.FileIO) -> bytes:
    """The bytes that can be read without blocking."""
    data = b""
    while chunk := stream.read(1 << 16):
        data += chunk
    return data
