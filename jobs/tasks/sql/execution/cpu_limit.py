"""CPU time limits inside a sandbox worker: a hard one kept by the kernel and a soft one for Python code."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def allow_cpu(seconds: int) -> None:
    """Let this process use that much more CPU from now on; the kernel kills it at the end of that."""
    global _allowed_until_s
    soft = int(time.process_time()) + 1 + seconds
    if soft != _allowed_until_s:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        _allowed_until_s = soft


_allowed_until_s = 0


class OutOfCpu(BaseException):
    """The code inside `within_cpu` has used up its time. No Exception: a parser that tries things would catch it."""


@contextmanager
def within_cpu(seconds: float) -> Iterator[None]:
    """Raise OutOfCpu in the code within when it has used so much CPU. Python alone is interrupted, C code is not."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfCpu

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
