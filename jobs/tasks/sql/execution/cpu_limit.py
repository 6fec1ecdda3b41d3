"""CPU time limits of a sandbox worker: a hard one enforced by the kernel, a soft one for Python code."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def set_cpu_limit(seconds: int) -> None:
    """Set RLIMIT_CPU to `seconds` of CPU time from now; past it the kernel kills this process with SIGXCPU."""
    global _limit_s
    soft = int(time.process_time()) + 1 + seconds
    if soft != _limit_s:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        _limit_s = soft


_limit_s = 0


class CpuLimitReached(BaseException):
    """Raised inside `limit_cpu`. Not an Exception: a parser that backtracks would catch it."""


@contextmanager
def limit_cpu(seconds: float) -> Iterator[None]:
    """Raise CpuLimitReached in the body after `seconds` of CPU time. Interrupts Python code, not C code."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise CpuLimitReached

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
