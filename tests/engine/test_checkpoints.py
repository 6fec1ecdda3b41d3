"""Checkpoints are uploaded beside the training, and only the newest is kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from stage_harness import StageHarness

from jobs import stage
from launcher.store import DirectoryStore, Manifest


def test_only_the_newest_checkpoint_is_kept(harness: StageHarness) -> None:
    harness.train("train", steps=5, checkpoint_every_steps=1)
    assert harness.run("train") == 0
    assert harness.work("train") == ["step-000004"]


class SlowUploads(DirectoryStore):
    """Holds back the commits of checkpoints until `gate` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.started: list[str] = []

    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        if "/work/" in prefix:
            self.started.append(prefix)
            assert self.gate.wait(120)
        return super().commit(prefix, directory, meta)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_training_continues_while_a_checkpoint_is_uploaded(harness: StageHarness, processes: int) -> None:
    harness.train("train", processes=processes, steps=12, checkpoint_every_steps=2)
    store = SlowUploads(harness.store.root)
    steps: list[int] = []
    put = store.put_json

    def record(path: str, value: Any, *, create_once: bool = True) -> bool:
        if "/heartbeats/" in path:
            steps.append(value["step"])
            if value["step"] == 12:
                # All steps are done, and no checkpoint is committed.
                assert store.started
                assert not harness.work("train")
                store.gate.set()
        return put(path, value, create_once=create_once)

    store.put_json = record  # type: ignore[method-assign]
    assert stage.run_stage(harness.plan(), "train", store, 1) == 0
    assert steps[-1] == 12
    assert harness.work("train") == ["step-000010"], "only the newest pending one is committed"
