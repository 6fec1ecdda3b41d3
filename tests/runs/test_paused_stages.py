"""A stage that was paused past its lease: another takes over, and the paused one does no harm when it wakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.outcome import DISPOSITIONS, Reason
from launcher.spec.loading import validate
from launcher.spec.lock import Lock
from launcher.spec.plan import Plan
from launcher.spec.planner import plan as make_plan
from launcher.store import DirectoryStore

#: Runs `prepare` with a body that writes numbered objects, each with its process id, until FINISH exists.
PROGRAM = """
import os, sys, time
from pathlib import Path
import jobs.prepare.stage as prepare
from jobs.stage import run_stage
from launcher.spec.plan import parse
from launcher.store import open_store

plan, root, finish, spent = parse(Path(sys.argv[1]).read_bytes(), "plan"), sys.argv[2], sys.argv[3], sys.argv[4]

def run(context):
    number = 0
    while not Path(finish).exists():
        number += 1
        context.store.put_json(context.work_path(f"{os.getpid()}/{number}.json"), {}, create_once=False)
        context.check_lease()
        with open(spent, "a") as stream:
            stream.write(f"{os.getpid()}\\n")
        context.heartbeat(number, 0, "rows")
        time.sleep(0.02)
    (context.out / "by").write_text(str(os.getpid()))

prepare.run = run
print("started", flush=True)
sys.exit(run_stage(plan, "prepare", open_store(root), 1, lease_s=float(sys.argv[5])))
"""


@pytest.fixture
def plan() -> Plan:
    document = {
        "name": "paused",
        "task": "chat",
        "scorers": ["exact"],
        "data": {"source": "chat"},
        "contenders": [{"name": "hosted", "kind": "hosted", "model": "gpt-4.1-nano-2025-04-14"}],
    }
    return make_plan(validate(document, where="test"), Lock())


Start = Callable[..., subprocess.Popen[str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path: Path, plan: Plan) -> Iterator[Start]:
    (tmp_path / "plan.json").write_bytes(plan.to_bytes())
    started: list[subprocess.Popen[str]] = []

    def begin(lease_s: float = 1.0) -> subprocess.Popen[str]:
        arguments = [str(tmp_path / name) for name in ("plan.json", "store", "finish", "spent")]
        with (tmp_path / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments, str(lease_s)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
        process.wait()


def writes_of(root: Path, plan: Plan, process: subprocess.Popen[str]) -> int:
    stage = plan.stage("prepare")
    work = root / "store" / f"runs/{plan.run_id}/work/prepare/{stage.key[:16]}/{process.pid}"
    return len(list(work.glob("*.json"))) if work.is_dir() else 0


def spent_by(root: Path, process: subprocess.Popen[str]) -> int:
    path = root / "spent"
    return path.read_text().split().count(str(process.pid)) if path.is_file() else 0


def test_a_woken_stage_neither_writes_nor_commits_nor_spends(
    tmp_path: Path, plan: Plan, start: Start, wait_until: Callable[..., Any]
) -> None:
    paused = start()
    wait_until(lambda: writes_of(tmp_path, plan, paused) > 3)
    os.kill(paused.pid, signal.SIGSTOP)
    second = start()
    wait_until(lambda: writes_of(tmp_path, plan, second) > 0)
    writes, spent = writes_of(tmp_path, plan, paused), spent_by(tmp_path, paused)
    os.kill(paused.pid, signal.SIGCONT)
    assert paused.wait(60) == DISPOSITIONS[Reason.KILLED].exit_code
    assert "another process has taken over prepare" in (tmp_path / "output").read_text()
    # One operation may have been under way when it was stopped.
    assert writes_of(tmp_path, plan, paused) <= writes + 1
    assert spent_by(tmp_path, paused) <= spent + 1
    assert second.poll() is None
    (tmp_path / "finish").touch()
    assert second.wait(60) == 0
    committed = DirectoryStore(tmp_path / "store").open(f"stages/{plan.stage('prepare').key}")
    assert committed.path("by").read_text() == str(second.pid)


def test_a_second_process_waits_for_the_holder_and_uses_what_it_commits(
    tmp_path: Path, plan: Plan, start: Start, wait_until: Callable[..., Any]
) -> None:
    first = start(lease_s=30.0)
    wait_until(lambda: writes_of(tmp_path, plan, first) > 0)
    second = start(lease_s=30.0)
    heartbeat = tmp_path / "store" / f"runs/{plan.run_id}/attempts/1/heartbeats/prepare.json"
    wait_until(lambda: "waiting" in json.loads(heartbeat.read_bytes())["unit"])
    (tmp_path / "finish").touch()
    assert first.wait(60) == 0
    assert second.wait(60) == 0
    assert writes_of(tmp_path, plan, second) == 0
    output = (tmp_path / "output").read_text()
    assert f"waiting for process {first.pid}" in output
    assert "another run has committed it" in output


def test_a_waiting_stage_ends_when_it_is_asked_to(
    tmp_path: Path, plan: Plan, start: Start, wait_until: Callable[..., Any]
) -> None:
    first = start(lease_s=30.0)
    wait_until(lambda: writes_of(tmp_path, plan, first) > 0)
    second = start(lease_s=30.0)
    wait_until(lambda: "waiting" in (tmp_path / "output").read_text())
    second.terminate()
    assert second.wait(30) == DISPOSITIONS[Reason.TERMINATED].exit_code
    assert first.poll() is None
