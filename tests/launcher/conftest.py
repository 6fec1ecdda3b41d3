"""What several of the light side's tests need. Nothing here needs the heavy side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_scene import Scene

from launcher.store import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "store")


@pytest.fixture
def commit(store: DirectoryStore, tmp_path: Path) -> Callable[..., None]:
    """Commit made-up output under a prefix, as a stage would."""

    def write(prefix: str, files: dict[str, bytes] | None = None, meta: dict[str, Any] | None = None) -> None:
        directory = tmp_path / "to-commit"
        for name, data in (files or {"out.txt": b"out"}).items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        store.commit(prefix, directory, meta or {})

    return write
