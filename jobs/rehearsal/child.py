"""A child process that speaks JSON lines on stdout and never outlives this process."""

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
#: What a child that computes needs of the environment; no key is among it.
_KEPT = (
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


class Child:
    """One process; `log` receives what it prints besides its reports."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, arguments: list[str], log: Path) -> Child:
        """`python ARGUMENTS` in a group of its own, with an environment without secrets."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                limit=_LINE_LIMIT_BYTES,
                preexec_fn=killed_with_parent(),
                process_group=0,
            )
        return cls(process)

    async def say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def reports(self) -> AsyncIterator[dict[str, Any]]:
        """Everything it says until it closes its side."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            yield json.loads(line)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def ask_to_stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> int:
        """Its exit code; negative for a signal."""
        return await self._process.wait()
