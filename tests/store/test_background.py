"""Training waits for a checkpoint's snapshot and never for its upload."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.outcome import Failure, Reason
from launcher.store import DirectoryStore, Manifest
from launcher.store.background_commits import BackgroundCommits


class SlowStore(DirectoryStore):
    """Commits wait until they are let through."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate, self.begun = threading.Event(), threading.Event()

    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        self.begun.set()
        assert self.gate.wait(30)
        return super().commit(prefix, directory, meta)


def checkpoint(directory: Path, step: int) -> Path:
    made = directory / "checkpoint"
    made.mkdir()
    (made / "weights").write_text(str(step))
    return made


def test_work_continues_while_a_commit_hangs_and_the_newest_snapshot_is_kept(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "store")
    commits = BackgroundCommits(store, tmp_path)
    for step in range(1, 6):
        commits.submit(f"work/step-{step}", checkpoint(tmp_path, step), {})
        assert store.begun.wait(10)
    assert store.list("work") == []
    store.gate.set()
    commits.drain()
    assert store.list("work") == ["step-1", "step-5"]
    assert commits.superseded == 3
    assert store.open("work/step-5").path("weights").read_text() == "5"
    assert not list(tmp_path.glob("snapshot-*"))


def test_a_superseded_snapshot_is_deleted_after_the_newer_one_is_committed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    seen: list[list[str]] = []

    def then(step: int) -> Callable[[], None]:
        def clear() -> None:
            seen.append(store.list("work"))
            for name in store.list("work"):
                if name < f"step-{step}":
                    store.delete(f"work/{name}")

        return clear

    with BackgroundCommits(store, tmp_path) as commits:
        for step in range(1, 4):
            commits.submit(f"work/step-{step}", checkpoint(tmp_path, step), {}, then(step))
            commits.drain()
    assert store.list("work") == ["step-3"]
    assert seen == [["step-1"], ["step-1", "step-2"], ["step-2", "step-3"]]


def test_a_failed_background_commit_raises_in_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path / "store")

    def fail(*_: Any, **__: Any) -> None:
        raise Failure(Reason.NETWORK, "the store is gone")

    monkeypatch.setattr(store, "commit", fail)
    commits = BackgroundCommits(store, tmp_path)
    commits.submit("work/step-1", checkpoint(tmp_path, 1), {})
    with pytest.raises(Failure, match="gone"):
        commits.drain()
    with pytest.raises(Failure, match="gone"):
        commits.submit("work/step-2", checkpoint(tmp_path, 2), {})
