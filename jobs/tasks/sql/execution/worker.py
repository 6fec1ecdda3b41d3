"""The outer wall: a process with an empty environment, hard limits and no life of its own.

It reads batches of jobs from stdin, each a list in `marshal`'s format behind its length (quicker than
JSON, and the parent is trusted), and answers each job with one JSON line on stdout. Whatever a job
does to this process (CPU limit, memory limit, crash) ends the process, and costs that job only: the
parent (pool.py) starts another and goes on behind it.

The kernel keeps the limits, so that they hold where the parent is stopped or gone:
CPU seconds per job (SIGXCPU), address space, file size 0, no core, few descriptors, and death
with the parent.
"""

from __future__ import annotations

import ctypes
import json
import marshal
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

from jobs.tasks.sql.execution.cpu_limit import allow_cpu
from launcher.system.processes import die_with_parent
from launcher.system.text import printable

#: What a process may hold. A job says itself how much CPU it may use before the kernel ends the process.
MEMORY_BYTES = 1 << 30
_DESCRIPTORS = 64
#: Bytes of a batch, before it.
LENGTH = struct.Struct("=Q")
OUT_OF_MEMORY_EXIT = 9
_MAX_ERROR_CHARACTERS = 300
_PR_SET_NO_NEW_PRIVS = 38


def enter_sandbox(parent: int, memory_bytes: int) -> None:
    """Give up everything a job does not need. Cannot be undone."""
    die_with_parent(parent)
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    if os.getppid() != parent:
        os._exit(0)
    os.environ.clear()
    os.chdir("/")
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        resource.setrlimit(kind, (value, value))
    # A terminal's Ctrl-C is for the parent, which ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def serve(handle: Callable[[dict[str, Any]], Any]) -> None:
    """Answer batches until stdin ends. A job's own error is an answer; any other ends the process: see `answered`."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while header := source.read(LENGTH.size):
        for job in marshal.loads(source.read(*LENGTH.unpack(header))):
            allow_cpu(job["cpu_s"])
            answer = json.dumps({"value": answered(handle, job)})
            sink.write(answer.encode() + b"\n")
            sink.flush()


def answered(handle: Callable[[dict[str, Any]], Any], job: dict[str, Any]) -> Any:
    """What `handle` says, or {"error": one short line} where a proof fails.

    A proof is for a person, who can do something with the error. A verdict is kept, so that one that
    fails must not look like one: its process ends.
    """
    try:
        return handle(job)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        if job["task"] != "explain":
            raise
        text = f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARACTERS]
        return {"error": printable(text)}


def main(parent: int, memory_bytes: int) -> None:
    """What the parent starts. Imports come first: afterwards few descriptors are left."""
    from jobs.tasks.sql.execution.judge import handle_job

    enter_sandbox(parent, memory_bytes)
    try:
        serve(handle_job)
    except (MemoryError, RecursionError):
        # State after either is not to be trusted; a fresh process is cheap.
        os._exit(OUT_OF_MEMORY_EXIT)
