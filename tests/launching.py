"""The launcher as a user runs it: a subprocess with a home and a store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The stages of the smoke profile, in an order in which they can run.
STAGES = (
    "fetch-untuned",
    "prepare",
    "predict-untuned",
    "score-untuned",
    "train-lora-s1",
    "predict-lora-s1",
    "score-lora-s1",
    "report",
)


@dataclass
class Launcher:
    """The launcher as a subprocess, with a home and a store of its own."""

    home: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNEYARD", "XDG", "HF_"))}
        return {
            **kept,
            "HOME": str(self.home),
            "TUNEYARD_STORE": str(self.store),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def __call__(
        self, *arguments: str, timeout_s: float = 240, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=self.environment,
            cwd=cwd or self.home,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """In the background; ended with the test."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.home,
        )
        self.started.append(process)
        return process

    def json(self, *arguments: str, timeout_s: float = 240) -> Any:
        done = self(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "launcher", *arguments]

    def processes(self) -> dict[int, str]:
        """Live processes that work on this launcher's store: process id -> command line."""
        return processes_naming(self.store)


def processes_naming(path: Path) -> dict[int, str]:
    """Live processes, younger than this one, with `path` in their command line: process id -> command line."""
    found = {}
    _, own_start = _state_and_start(os.getpid())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state, start = _state_and_start(int(entry.name))
        except OSError:
            continue
        if state != "Z" and start > own_start and any(str(path) in word for word in words):
            found[int(entry.name)] = " ".join(words)
    return found


def _state_and_start(pid: int) -> tuple[str, int]:
    """A process's state letter and its start in clock ticks since boot."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])
