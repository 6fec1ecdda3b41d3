"""In a pod a stage keeps its log in the store, writes only where it may, and never waits for an upload."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from harness import Bench

from jobs import stage
from launcher.outcome import DISPOSITIONS, Reason
from launcher.spec.stages import DirectoryModel, FetchSettings, RandomModel
from launcher.store import DirectoryStore, Manifest
from launcher.store.runs import Attempt


def another_model(bench: Bench) -> None:
    """A stage that takes no time."""
    bench.add("other", "fetch", FetchSettings(source=RandomModel(seed=7)), {})


def log_of(bench: Bench, name: str, number: int) -> str:
    path = Attempt(bench.store, bench.plan().run_id, 1).log(name, number)
    assert path is not None
    return path.read_text()


def test_the_log_of_a_try_is_kept_and_still_printed(bench: Bench) -> None:
    another_model(bench)
    process = bench.start("other", TUNEYARD_TRY="3")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "random 1/1" in said
    assert log_of(bench, "other", 3) == said


def test_the_log_of_a_stage_that_fails_ends_with_the_reason(bench: Bench) -> None:
    missing = {"config.json": "0" * 64}
    bench.add("other", "fetch", FetchSettings(source=DirectoryModel()), {}, missing)
    process = bench.start("other", TUNEYARD_TRY="1")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == DISPOSITIONS[Reason.MISSING_INPUT].exit_code, said
    assert log_of(bench, "other", 1) == said
    assert "next: " in said


def test_the_log_of_a_stopped_stage_is_kept_and_it_exits_143(bench: Bench) -> None:
    bench.train("train", steps=400, checkpoint_every_steps=5)
    process = bench.start("train", TUNEYARD_TRY="1")
    assert process.stdout is not None
    said = ""
    while "step " not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGTERM)
    said += process.stdout.read()
    assert process.wait(60) == DISPOSITIONS[Reason.TERMINATED].exit_code, said
    assert log_of(bench, "train", 1) == said


def test_only_the_first_of_several_nodes_keeps_a_log(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.pod import stored_log

    monkeypatch.setenv("TUNEYARD_TRY", "1")
    monkeypatch.setenv("TUNEYARD_NODES", "2")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    attempt = Attempt(bench.store, bench.plan().run_id, 1)
    with stored_log(attempt, "fetch"):
        print("not kept")
    assert attempt.log("fetch", 1) is None


def test_home_and_temporary_directories_are_made_for_this_user_alone(bench: Bench, tmp_path: Path) -> None:
    home, temporary = tmp_path / "scratch" / "home", tmp_path / "scratch" / "tmp"
    another_model(bench)
    process = bench.start("other", TUNEYARD_TRY="1", HOME=str(home), TMPDIR=str(temporary))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert [path.stat().st_mode & 0o777 for path in (home, temporary)] == [0o700, 0o700]


class SlowUploads(DirectoryStore):
    """Checkpoints do not arrive before they are let through."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.begun: list[str] = []

    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        if "/work/" in prefix:
            self.begun.append(prefix)
            assert self.gate.wait(120)
        return super().commit(prefix, directory, meta)


@pytest.mark.parametrize("processes", [1, 2])
def test_steps_go_on_while_a_checkpoint_is_uploaded(bench: Bench, processes: int) -> None:
    bench.train("train", processes=processes, steps=12, checkpoint_every_steps=2)
    store = SlowUploads(bench.store.root)
    beats: list[int] = []
    put = store.put_json

    def watched(path: str, value: Any, *, create_once: bool = True) -> bool:
        if "/heartbeats/" in path:
            beats.append(value["step"])
            if value["step"] == 12:
                # Every step is done and not one checkpoint has arrived.
                assert store.begun
                assert not bench.work("train")
                store.gate.set()
        return put(path, value, create_once=create_once)

    store.put_json = watched  # type: ignore[method-assign]
    assert stage.run_stage(bench.plan(), "train", store, 1) == 0
    assert beats[-1] == 12
    assert bench.work("train") == ["step-000010"], "of those that waited, the newest"


def test_a_crash_still_tells_its_last_words(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from jobs.pod import _tee\n"
        "with _tee(Path(sys.argv[1])):\n"
        "    print('before', flush=True)\n"
        "    os.system('echo a child')\n"
        "    os.abort()\n"
    )
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", program, str(log)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGABRT
    assert done.stdout == "before\na child\n"
    assert log.read_text() == done.stdout
