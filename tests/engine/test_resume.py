"""A killed or stopped training resumes from its checkpoint and ends with the same adapter."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage_harness import StageHarness

from launcher.outcome import DISPOSITIONS, Reason
from launcher.store.runs import Attempt

LONG: dict[str, Any] = {
    "steps": 60,
    "checkpoint_every_steps": 10,
    "evaluate_every_steps": 30,
    "batch_rows": 8,
}

Start = Callable[..., subprocess.Popen[str]]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until `condition` holds; fail if the process ends first, or after two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def start(harness: StageHarness) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, **environment: str) -> subprocess.Popen[str]:
        started.append(harness.start(name, **environment))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def adapter(harness: StageHarness, name: str) -> bytes:
    return (harness.output(name) / "adapter_model.safetensors").read_bytes()


def uninterrupted(directory: Path) -> bytes:
    whole = StageHarness(directory)
    whole.train("train", **LONG)
    assert whole.run("train") == 0
    return adapter(whole, "train")


def test_killed_and_stopped_training_resumes_to_the_uninterrupted_adapter(
    harness: StageHarness, start: Start, tmp_path: Path
) -> None:
    harness.train("train", **LONG)
    killed = start("train")
    wait_until(lambda: bool(harness.work("train")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    left = harness.work("train")
    assert left
    stopped = start("train", TUNEYARD_TRY="2")
    wait_until(lambda: harness.work("train")[-1] > left[-1], stopped)
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate()
    assert stopped.returncode == DISPOSITIONS[Reason.TERMINATED].exit_code, output
    assert "continuing after step" in output
    log = Attempt(harness.store, harness.plan().run_id, 1).log("train", 2)
    assert log is not None
    assert log.read_text() == output, "a stopped stage stores its log"
    assert harness.run("train") == 0
    assert adapter(harness, "train") == uninterrupted(tmp_path / "whole")


def test_one_worker_resumes_what_two_stopped_workers_left(harness: StageHarness, start: Start) -> None:
    harness.train("train", processes=2, **{**LONG, "checkpoint_every_steps": 2})
    stage = start("train")
    wait_until(lambda: bool(harness.work("train")), stage)
    workers = children(stage.pid)
    stage.send_signal(signal.SIGTERM)
    output, _ = stage.communicate()
    assert stage.returncode == DISPOSITIONS[Reason.TERMINATED].exit_code, output
    assert not any(alive(worker) for worker in workers)
    assert harness.run("train") == 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
