"""In a pod a stage stores its log and creates its writable directories. test_resume.py has a stopped stage."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stage_harness import StageHarness

from launcher.outcome import DISPOSITIONS, Reason
from launcher.spec.stages import DirectoryModel, FetchSettings, RandomModel
from launcher.store.runs import Attempt


def add_fetch_stage(harness: StageHarness) -> None:
    """A stage that takes no time."""
    harness.add("other", "fetch", FetchSettings(source=RandomModel(seed=7)), {})


def log_of(harness: StageHarness, name: str, number: int) -> str:
    path = Attempt(harness.store, harness.plan().run_id, 1).log(name, number)
    assert path is not None
    return path.read_text()


def test_a_log_is_stored_and_printed(harness: StageHarness) -> None:
    add_fetch_stage(harness)
    process = harness.start("other", TUNEYARD_TRY="3")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "random 1/1" in said
    assert log_of(harness, "other", 3) == said


def test_the_log_of_a_failed_stage_ends_with_its_failure(harness: StageHarness) -> None:
    missing = {"config.json": "0" * 64}
    harness.add("other", "fetch", FetchSettings(source=DirectoryModel()), {}, missing)
    process = harness.start("other", TUNEYARD_TRY="1")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == DISPOSITIONS[Reason.MISSING_INPUT].exit_code, said
    assert log_of(harness, "other", 1) == said
    assert "next: " in said


def test_only_node_0_stores_a_log(harness: StageHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.runtime.pod import stored_log

    monkeypatch.setenv("TUNEYARD_TRY", "1")
    monkeypatch.setenv("TUNEYARD_NODES", "2")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    attempt = Attempt(harness.store, harness.plan().run_id, 1)
    with stored_log(attempt, "fetch"):
        print("not kept")
    assert attempt.log("fetch", 1) is None


def test_home_and_tmpdir_are_created_with_mode_0700(harness: StageHarness, tmp_path: Path) -> None:
    home, temporary = tmp_path / "scratch" / "home", tmp_path / "scratch" / "tmp"
    add_fetch_stage(harness)
    process = harness.start("other", TUNEYARD_TRY="1", HOME=str(home), TMPDIR=str(temporary))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert [path.stat().st_mode & 0o777 for path in (home, temporary)] == [0o700, 0o700]


def test_output_before_a_crash_is_stored(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from jobs.runtime.pod import _tee\n"
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
