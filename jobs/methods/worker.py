"""Entry point of one training worker: `python -m jobs.methods.worker JOB RANK LOCAL_RANK REPORT_FD`.

Started by `worker_pool` only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.methods.sft import StoppedAtStep, train
from jobs.methods.worker_pool import STOPPED, from_json
from launcher.outcome import Failure, Reason


class PipeReporter:
    """Says what happens as JSON lines; the stage's process acts on them."""

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
        self._say(kind="heartbeat", step=step, total=total, measures=measures)

    def checkpoint(self, directory: Path, step: int) -> None:
        self._say(kind="checkpoint", directory=str(directory), step=step)

    def facts(self, measured: dict[str, Any]) -> None:
        self._say(kind="facts", measured=measured)

    def failure(self, failure: Failure) -> None:
        self._say(kind="failure", failure=failure.to_json())

    def _say(self, **report: Any) -> None:
        self._stream.write(json.dumps(report) + "\n")
        self._stream.flush()


def main() -> int:
    description, rank, local_rank, descriptor = sys.argv[1:]
    job = from_json(Path(description).read_text(encoding="utf-8"), int(rank), int(local_rank))
    reporter = PipeReporter(int(descriptor))
    try:
        train(job, reporter)
    except StoppedAtStep:
        return STOPPED
    except Failure as failure:
        # All workers meet the same failure; the supervisor keeps the first.
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
