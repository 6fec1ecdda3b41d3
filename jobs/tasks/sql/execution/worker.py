"""The outer sandbox: a worker process with an empty environment and limits enforced by the kernel.

It reads batches of jobs from stdin, each a length and a list in `marshal` format (faster than JSON; the parent
is trusted), and writes one JSON line per job to stdout. A job that reaches a limit or crashes the process is
lost; the parent (worker_pool.py) starts another process for the jobs after it.

The limits hold even if the parent is stopped or dead: CPU seconds per job (SIGXCPU), address space, file size
0, no core file, few descriptors, death with the parent.
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

from jobs.tasks.sql.execution.cpu_limit import set_cpu_limit
from jobs.tasks.sql.execution.records import JsonObject
from launcher.system.processes import die_with_parent
from launcher.system.text import printable

#: Address space of a worker. The CPU limit comes with each job.
MEMORY_BYTES = 1 << 30
_DESCRIPTORS = 64
#: Header of a batch: its length in bytes.
LENGTH = struct.Struct("=Q")
OUT_OF_MEMORY_EXIT = 9
_MAX_ERROR_CHARACTERS = 300
_PR_SET_NO_NEW_PRIVS = 38


def enter_sandbox(parent: int, memory_bytes: int) -> None:
    """Drop the environment and set the limits, irreversibly. Raises OSError if the kernel refuses."""
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
    # Ctrl-C in a terminal also reaches workers; the parent kills them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def serve(handle: Callable[[JsonObject], object]) -> None:
    """Run batches of jobs until stdin ends; for exceptions see `result_of`."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while header := source.read(LENGTH.size):
        for job in marshal.loads(source.read(*LENGTH.unpack(header))):
            set_cpu_limit(job["cpu_s"])
            line = json.dumps({"value": result_of(handle, job)})
            sink.write(line.encode() + b"\n")
            sink.flush()


def result_of(handle: Callable[[JsonObject], object], job: JsonObject) -> object:
    """The result of a job as JSON; {"error": one short line} if an explanation fails.

    Any other exception is raised and ends the process: the job is lost, and no wrong verdict is cached.
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
    """The entry point of a worker. Modules are imported before the descriptor limit is set."""
    from jobs.tasks.sql.execution.judge import handle_job

    enter_sandbox(parent, memory_bytes)
    try:
        serve(handle_job)
    except (MemoryError, RecursionError):
        # The interpreter may be in an inconsistent state; a new process is cheap.
        os._exit(OUT_OF_MEMORY_EXIT)
