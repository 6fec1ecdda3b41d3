"""A child process that writes JSON lines to stdout and ends with this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from launcher.system.processes import killed_with_parent

_LINE_LIMIT_BYTES = 64 << 20
#: Environment variables that child processes inherit. None holds a key.
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
)


class ChildProcess:
    """A running process. Its stderr goes to a log file."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, arguments: list[str], log: Path) -> ChildProcess:
        """Start `python ARGUMENTS` in its own process group, with an environment without secrets."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ},
                limit=_LINE_LIMIT_BYTES,
                preexec_fn=killed_with_parent(),
                process_group=0,
            )
        return cls(process)

    async def send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def reports(self) -> AsyncIterator[dict[str, Any]]:
        """Messages from stdout until the process closes it."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            yield json.loads(line)

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        """Wait for the exit code; negative for a signal."""
        return await self._process.wait()
