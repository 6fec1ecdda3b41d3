"""Several nodes train as one machine does: same adapter, one that reports, and none that waits for the dead."""

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
from harness import Bench

from jobs import nodes
from launcher.outcome import DISPOSITIONS, Failure, Reason

LONG: dict[str, Any] = {"steps": 400, "checkpoint_every_steps": 5, "evaluate_every_steps": 400}
Start = Callable[..., list[subprocess.Popen[str]]]


def free_ports() -> int:
    """The first of two neighbouring ports that are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = int(one.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
                return port
            except OSError:
                continue


@pytest.fixture
def start(bench: Bench) -> Iterator[Start]:
    """Start a stage on two nodes, each a process that finds the other as pods do, on loopback."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, indexes: tuple[int, ...] = (0, 1), port: int = 0) -> list[subprocess.Popen[str]]:
        port = port or free_ports()
        made = [
            bench.start(
                name,
                TUNEYARD_NODES="2",
                JOB_COMPLETION_INDEX=str(index),
                TUNEYARD_RENDEZVOUS_HOST="127.0.0.1",
                TUNEYARD_RENDEZVOUS_PORT=str(port),
                TUNEYARD_TERMINATION_LOG=str(bench.store.root / f"termination-{index}"),
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


def files(bench: Bench, name: str) -> dict[str, bytes]:
    """The stage's files; not the manifest, which says how long it took."""
    return {
        path.name: path.read_bytes()
        for path in sorted(bench.output(name).iterdir())
        if path.name != "_SUCCESS.json"
    }


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in listed]


@pytest.mark.slow
def test_two_nodes_give_the_files_of_one_machine_and_only_the_first_reports(
    bench: Bench, start: Start, tmp_path: Path
) -> None:
    bench.train("train", processes=2)
    first, second = outputs(processes := start("train"))
    assert [process.returncode for process in processes] == [0, 0], first + second
    assert "step 6/6" in first
    assert "step 6/6" not in second
    alone = Bench(tmp_path / "alone")
    alone.train("train", processes=2)
    assert alone.run("train") == 0
    assert files(bench, "train") == files(alone, "train")
    again = start("train")
    assert all("nothing to do" in said for said in outputs(again))
    assert [process.returncode for process in again] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_node_that_dies_fails_the_other_within_seconds(bench: Bench, start: Start, victim: int) -> None:
    bench.train("train", processes=2, **LONG)
    processes = start("train")
    wait_until(lambda: bool(bench.work("train")), processes)
    processes[victim].send_signal(signal.SIGKILL)
    died_at = time.monotonic()
    survivor = processes[1 - victim]
    said = survivor.communicate(timeout=60)[0]
    assert time.monotonic() - died_at < 20
    assert survivor.returncode == DISPOSITIONS[Reason.KILLED].exit_code, said
    assert f"lost the connection to node {victim}" in said
    processes[victim].wait()
    assert bench.work("train"), "the checkpoint is there for the next try"


@pytest.mark.slow
def test_a_stopped_node_stops_both_and_they_continue_to_the_same_adapter(
    bench: Bench, start: Start, tmp_path: Path
) -> None:
    settings = {**LONG, "steps": 40, "evaluate_every_steps": 20}
    bench.train("train", processes=2, **settings)
    stopped = DISPOSITIONS[Reason.TERMINATED].exit_code
    for asked in (1, 0):
        before = bench.work("train") if asked == 0 else []
        processes = start("train")
        wait_until(partial(_has_other_work, bench, before), processes)
        processes[asked].send_signal(signal.SIGTERM)
        said = outputs(processes)
        assert [process.returncode for process in processes] == [stopped, stopped], said
        assert ("continuing after step" in said[0]) is bool(before)
    assert bench.run("train") == 0, "one machine continues what two nodes began"
    alone = Bench(tmp_path / "alone")
    alone.train("train", processes=2, **settings)
    assert alone.run("train") == 0
    adapter = "adapter_model.safetensors"
    assert files(bench, "train")[adapter] == files(alone, "train")[adapter]


def _has_other_work(bench: Bench, before: list[str]) -> bool:
    return bool(bench.work("train")) and bench.work("train") != before


@pytest.mark.slow
def test_a_worker_that_dies_on_one_node_is_the_reason_on_both(bench: Bench, start: Start) -> None:
    bench.train("train", processes=2, **LONG)
    processes = start("train")
    wait_until(lambda: bool(bench.work("train")), processes)
    (worker,) = children(processes[1])
    os.kill(worker, signal.SIGKILL)
    said = outputs(processes)
    killed = DISPOSITIONS[Reason.KILLED].exit_code
    assert [process.returncode for process in processes] == [killed, killed], said
    assert all("worker" in text and "ended with code -9" in text for text in said), said


def test_a_node_that_waits_for_the_first_can_be_stopped(bench: Bench, start: Start) -> None:
    bench.train("train", processes=2)
    (lonely,) = start("train", indexes=(1,))
    wait_until(
        lambda: (
            (bench.store.root / "runs").exists()
            and bool(list((bench.store.root / "runs").rglob("scratch-node-1")))
        ),
        [lonely],
    )
    time.sleep(0.5)
    lonely.send_signal(signal.SIGTERM)
    said = lonely.communicate(timeout=30)[0]
    assert lonely.returncode == DISPOSITIONS[Reason.TERMINATED].exit_code, said


def test_the_first_node_is_named_as_pods_of_an_indexed_job_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_NODES", "2")
    monkeypatch.setenv("TUNEYARD_RENDEZVOUS_SERVICE", "run-train-0a1b2")
    monkeypatch.setattr(socket, "gethostname", lambda: "run-train-0a1b2-t1-1")
    assert nodes.rendezvous_address() == ("run-train-0a1b2-t1-0.run-train-0a1b2", 29500)
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    with pytest.raises(Failure) as caught:
        nodes.rendezvous_address()
    assert caught.value.reason is Reason.USAGE
