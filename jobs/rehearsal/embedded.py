"""A rehearsal server as a child process of the stage that calls it, on loopback with a random key.

Its state is in the stage's scratch directory. Snapshots in the work area let a killed stage continue from the
newest one on any machine. The server ends with the stage.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.hosted.client import Connection
from jobs.rehearsal import state
from jobs.rehearsal.command import KEYS_VARIABLE
from jobs.rehearsal.recipe import Recipe
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason
from launcher.spec.contenders import Rehearsal
from launcher.spec.providers import Provider

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 75.0
_TENANT = "rehearsal"
_PREFIX = "state-"
#: Environment variables that the server inherits. None holds a key of a service.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")


class EmbeddedServer:
    """The server of one stage and the snapshots of its state."""

    def __init__(self, context: StageContext, provider: Provider, settings: Rehearsal, model: str) -> None:
        self._context = context
        self._provider = provider
        self._settings = settings
        self._model = model
        self.directory = context.scratch / "rehearsal"
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0

    def restore(self, initial: Path | None = None) -> None:
        """Restore the newest snapshot of this stage, else a copy of `initial`, else an empty state."""
        store, work = self._context.store, self._context.work_path("")
        names = [name for name in store.list(work) if name.startswith(_PREFIX)]
        for name in reversed(names):
            if store.exists(f"{work}/{name}"):
                self._number = int(name.removeprefix(_PREFIX))
                initial = store.open(f"{work}/{name}").directory()
                break
        if initial is None:
            self.directory.mkdir(parents=True)
            return
        # Artifacts are read-only; the server writes to its copy, and in a pod it is not root.
        ignored = shutil.ignore_patterns("_SUCCESS.json")
        shutil.copytree(initial, self.directory, ignore=ignored, copy_function=shutil.copyfile)
        for directory in (self.directory, *self.directory.rglob("*/")):
            directory.chmod(0o755)

    @contextmanager
    def running(self) -> Iterator[Connection]:
        """Run the server inside this context; afterwards `directory` holds its final state."""
        key = f"sk-rehearsal-{secrets.token_urlsafe(24)}"
        ready = self._context.scratch / "rehearsal.url"
        ready.unlink(missing_ok=True)
        recipe = Recipe.of(self._settings)
        base = self._context.input("model").directory()
        command = [
            *(sys.executable, "-m", "jobs", "rehearse", "--die-with-parent", "--port", "0"),
            *("--state", str(self.directory), "--model", f"{self._model}={base}"),
            *("--recipe", recipe.model_dump_json(), "--ready-file", str(ready)),
        ]
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment[KEYS_VARIABLE] = json.dumps({key: _TENANT})
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        try:
            yield Connection(self._provider, self._wait_until_ready(ready), key)
        finally:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _wait_until_ready(self, ready: Path) -> str:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Failure(Reason.INTERNAL, "the rehearsal server did not start")
            time.sleep(0.02)
        return ready.read_text(encoding="ascii")

    def save(self) -> None:
        """Commit a snapshot of the current state, then delete the previous one."""
        store = self._context.store
        staged = self._context.scratch / "snapshot"
        shutil.rmtree(staged, ignore_errors=True)
        self.copy_to(staged)
        previous, self._number = self._number, self._number + 1
        store.commit(self._context.work_path(f"{_PREFIX}{self._number:06d}"), staged, {})
        if previous:
            store.delete(self._context.work_path(f"{_PREFIX}{previous:06d}"))

    def copy_to(self, target: Path) -> None:
        """Copy the server's state and the stage's journal consistently."""
        # The journal first: the state must contain every object that the journal names.
        if (journal := self.directory / "notes").is_dir():
            shutil.copytree(journal, target / "notes")
        state.snapshot(self.directory, target)
