"""Training on two nodes, as two process trees on loopback. test_rendezvous.py has the protocol alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stage_harness import StageHarness

from jobs.runtime import nodes
from launcher.outcome import DISPOSITIONS, Failure, Reason

LONG: dict[str, Any] = {"steps": 400, "checkpoint_every_steps": 5, "evaluate_every_steps": 400}
Start = Callable[..., list[subprocess.Popen[str]]]


def free_ports() -> int:
    """The first of two adjacent free ports."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = int(one.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
                return port
            except OSError:
                continue


@pytest.fixture
def start(harness: StageHarness) -> Iterator[Start]:
    """Start a stage on two nodes: processes with the environment of an Indexed Job's pods, on loopback."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, indexes: tuple[int, ...] = (0, 1), port: int = 0) -> list[subprocess.Popen[str]]:
        port = port or free_ports()
        made = [
            harness.start(
                name,
                TUNEYARD_NODES="2",
                JOB_COMPLETION_INDEX=str(index),
                TUNEYARD_RENDEZVOUS_HOST="127.0.0.1",
                TUNEYARD_RENDEZVOUS_PORT=str(port),
                TUNEYARD_TERMINATION_LOG=str(harness.store.root / f"termination-{index}"),
            )
            for index in indexes
        ]
        started.extend(made)
        return made

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        for process in processes:
            assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def outputs(processes: list[subprocess.Popen[str]]) -> list[str]:
    return [process.communicate(timeout=300)[0] for process in processes]


def files(harness: StageHarness, name: str) -> dict[str, bytes]:
    """The stage's output files, without the manifest, which holds times."""
    return {
        path.name: path.read_bytes()
        for path in sorted(harness.output(name).iterdir())
        if path.name != "_SUCCESS.json"
    }


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in listed]


@pytest.mark.slow
def test_two_nodes_write_the_files_of_one_and_only_node_0_reports(
    harness: StageHarness, start: Start, tmp_path: Path
) -> None:
    harness.train("train", processes=2)
    first, second = outputs(processes := start("train"))
    assert [process.returncode for process in processes] == [0, 0], first + second
    assert "step 6/6" in first
    assert "step 6/6" not in second
    alone = StageHarness(tmp_path / "alone")
    alone.train("train", processes=2)
    assert alone.run("train") == 0
    assert files(harness, "train") == files(alone, "train")
    again = start("train")
    assert all("nothing to do" in said for said in outputs(again))
    assert [process.returncode for process in again] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_node_fails_the_other_within_seconds(
    harness: StageHarness, start: Start, victim: int
) -> None:
    harness.train("train", processes=2, **LONG)
    processes = start("train")
    wait_until(lambda: bool(harness.work("train")), processes)
    processes[victim].send_signal(signal.SIGKILL)
    died_at = time.monotonic()
    survivor = processes[1 - victim]
    said = survivor.communicate(timeout=60)[0]
    assert time.monotonic() - died_at < 20
    assert survivor.returncode == DISPOSITIONS[Reason.KILLED].exit_code, said
    assert f"lost the connection to node {victim}" in said
    processes[victim].wait()
    assert harness.work("train"), "the next try needs the checkpoint"


@pytest.mark.slow
def test_a_stopped_node_stops_both_and_they_resume_to_the_same_adapter(
    harness: StageHarness, start: Start, tmp_path: Path
) -> None:
    settings = {**LONG, "steps": 40, "evaluate_every_steps": 20}
    harness.train("train", processes=2, **settings)
    stopped = DISPOSITIONS[Reason.TERMINATED].exit_code
    for asked in (1, 0):
        before = harness.work("train") if asked == 0 else []
        processes = start("train")
        wait_until(partial(_has_other_work, harness, before), processes)
        processes[asked].send_signal(signal.SIGTERM)
        said = outputs(processes)
        assert [process.returncode for process in processes] == [stopped, stopped], said
        assert ("continuing after step" in said[0]) is bool(before)
    assert harness.run("train") == 0, "one node resumes what two nodes left"
    alone = StageHarness(tmp_path / "alone")
    alone.train("train", processes=2, **settings)
    assert alone.run("train") == 0
    adapter = "adapter_model.safetensors"
    assert files(harness, "train")[adapter] == files(alone, "train")[adapter]


def _has_other_work(harness: StageHarness, before: list[str]) -> bool:
    return bool(harness.work("train")) and harness.work("train") != before


@pytest.mark.slow
def test_a_killed_worker_fails_both_nodes(harness: StageHarness, start: Start) -> None:
    harness.train("train", processes=2, **LONG)
    processes = start("train")
    wait_until(lambda: bool(harness.work("train")), processes)
    (worker,) = children(processes[1])
    os.kill(worker, signal.SIGKILL)
    said = outputs(processes)
    killed = DISPOSITIONS[Reason.KILLED].exit_code
    assert [process.returncode for process in processes] == [killed, killed], said
    assert all("worker" in text and "ended with code -9" in text for text in said), said


def test_a_node_waiting_for_node_0_can_be_stopped(harness: StageHarness, start: Start) -> None:
    harness.train("train", processes=2)
    (lonely,) = start("train", indexes=(1,))
    wait_until(
        lambda: (
            (harness.store.root / "runs").exists()
            and bool(list((harness.store.root / "runs").rglob("scratch-node-1")))
        ),
        [lonely],
    )
    time.sleep(0.5)
    lonely.send_signal(signal.SIGTERM)
    said = lonely.communicate(timeout=30)[0]
    assert lonely.returncode == DISPOSITIONS[Reason.TERMINATED].exit_code, said


def test_rendezvous_address_is_pod_0_of_the_indexed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_NODES", "2")
    monkeypatch.setenv("TUNEYARD_RENDEZVOUS_SERVICE", "run-train-0a1b2")
    monkeypatch.setattr(socket, "gethostname", lambda: "run-train-0a1b2-t1-1")
    assert nodes.rendezvous_address() == ("run-train-0a1b2-t1-0.run-train-0a1b2", 29500)
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    with pytest.raises(Failure) as caught:
        nodes.rendezvous_address()
    assert caught.value.reason is Reason.USAGE
