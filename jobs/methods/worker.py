"""One training worker: `python -m jobs.methods.worker JOB RANK LOCAL_RANK REPORT_FD`, started by `worker_pool`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from jobs.methods.sft import train
from jobs.methods.training_facts import MeasuredTraining
from jobs.methods.training_job import StoppedAtStep, from_json
from jobs.methods.worker_reports import (
    CheckpointReport,
    FailureReport,
    HeartbeatReport,
    MeasuredReport,
    WorkerReport,
    to_line,
)
from launcher.outcome import DISPOSITIONS, Failure, Reason


class PipeReporter:
    """A Reporter that writes to a pipe. SIGTERM requests a stop."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "w", encoding="utf-8")
        self._stop = False
        signal.signal(signal.SIGTERM, self._request_stop)

    def _request_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop = True

    @property
    def stop_requested(self) -> bool:
        return self._stop

    def heartbeat(self, step: int, total: int, measures: dict[str, float]) -> None:
        self._send(HeartbeatReport(step, total, measures))

    def checkpoint(self, directory: Path, step: int) -> None:
        self._send(CheckpointReport(directory, step))

    def measured(self, facts: MeasuredTraining) -> None:
        self._send(MeasuredReport(facts))

    def failure(self, failure: Failure) -> None:
        self._send(FailureReport(failure))

    def _send(self, report: WorkerReport) -> None:
        self._stream.write(to_line(report))
        self._stream.flush()


def main() -> int:
    path, rank, local_rank, descriptor = sys.argv[1:]
    job = from_json(Path(path).read_text(encoding="utf-8")).of_worker(int(rank), int(local_rank))
    reporter = PipeReporter(int(descriptor))
    try:
        train(job, reporter)
    except StoppedAtStep:
        return DISPOSITIONS[Reason.TERMINATED].exit_code
    except Failure as failure:
        # Usually every worker fails alike; the pool raises the first report.
        reporter.failure(failure)
        return failure.exit_code
    except Exception as error:
        traceback.print_exc()
        out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        reason = Reason.OUT_OF_MEMORY if out_of_memory else Reason.INTERNAL
        reporter.failure(Failure(reason, f"{type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
