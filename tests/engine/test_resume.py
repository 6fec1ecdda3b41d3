"""Killed or stopped at any moment, training continues and ends with the same adapter; nobody stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Bench

from launcher.outcome import DISPOSITIONS, Reason

LONG: dict[str, Any] = {
    "steps": 60,
    "checkpoint_every_steps": 10,
    "evaluate_every_steps": 30,
    "batch_rows": 8,
}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until `condition` holds; fails where the process ends before, or after two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def start(bench: Bench) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def begin(name: str) -> subprocess.Popen[str]:
        started.append(bench.start(name))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def adapter(bench: Bench, name: str) -> bytes:
    return (bench.output(name) / "adapter_model.safetensors").read_bytes()


def uninterrupted(directory: Path) -> bytes:
    whole = Bench(directory)
    whole.train("train", **LONG)
    assert whole.run("train") == 0
    return adapter(whole, "train")


def test_killed_and_resumed_equals_uninterrupted_and_so_does_stopped(
    bench: Bench, start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    bench.train("train", **LONG)
    killed = start("train")
    wait_until(lambda: bool(bench.work("train")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    left = bench.work("train")
    assert left
    stopped = start("train")
    wait_until(lambda: bench.work("train")[-1] > left[-1], stopped)
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate()
    assert stopped.returncode == DISPOSITIONS[Reason.TERMINATED].exit_code, output
    assert "continuing after step" in output
    assert bench.run("train") == 0
    assert adapter(bench, "train") == uninterrupted(tmp_path / "whole")


def test_only_the_newest_checkpoint_is_kept(bench: Bench) -> None:
    bench.train("train", steps=5, checkpoint_every_steps=1)
    assert bench.run("train") == 0
    assert bench.work("train") == ["step-000004"]


def test_workers_die_with_the_stage(bench: Bench, start: Callable[[str], subprocess.Popen[str]]) -> None:
    bench.train("train", processes=2, **LONG)
    stage = start("train")
    wait_until(lambda: bool(bench.work("train")), stage)
    workers = children(stage.pid)
    assert len(workers) == 2
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    deadline = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_workers_stop_together_and_one_continues_what_they_left(
    bench: Bench, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    bench.train("train", processes=2, **LONG)
    stage = start("train")
    wait_until(lambda: bool(bench.work("train")), stage)
    workers = children(stage.pid)
    stage.send_signal(signal.SIGTERM)
    output, _ = stage.communicate()
    assert stage.returncode == DISPOSITIONS[Reason.TERMINATED].exit_code, output
    assert not any(alive(worker) for worker in workers)
    assert bench.run("train") == 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
