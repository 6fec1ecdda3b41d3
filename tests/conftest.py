"""What several areas' tests need: the real data beside the checkout, and the launcher as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout, or the directory TUNEYARD_DATA; skips where there is none."""
    named = os.environ.get("TUNEYARD_DATA")
    directory = Path(named) if named else ROOT.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip(f"no data at {directory}: set TUNEYARD_DATA")
    return directory


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

    def __call__(self, *arguments: str, timeout_s: float = 240, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout_s, check=False,
            env=self.environment, cwd=cwd or self.home,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """In the background; ended with the test."""
        process = subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment, cwd=self.home,
        )
        self.started.append(process)
        return process

    def json(self, *arguments: str, timeout_s: float = 240) -> Any:
        done = self(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "launcher", *arguments]

    def processes(self) -> dict[int, str]:
        """Every live process that works for this launcher's store: pid -> command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and any(str(self.store) in word for word in words):
                found[int(entry.name)] = " ".join(words)
        return found


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """A launcher whose runs are cancelled and whose processes are gone when the test ends."""
    one = Launcher(tmp_path)
    yield one
    for process in one.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in one.processes():
        os.kill(pid, 9)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a condition, not for a time; fails with the condition's name where it never comes."""
    import time

    def wait(condition: Callable[[], object], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s} s: {condition.__qualname__}")
            time.sleep(0.02)

    return wait
