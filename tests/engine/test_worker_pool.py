"""The worker pool forwards reports, a stop and failures, and leaves no worker behind. No worker here needs torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.methods import worker
from jobs.methods.training_facts import MeasuredTraining
from jobs.methods.training_job import StoppedAtStep, TrainingJob, from_json, to_json
from jobs.methods.worker_pool import WorkerPool
from jobs.methods.worker_reports import FailureReport, from_line
from jobs.models.adapters import BaseReference
from launcher.outcome import Failure, Reason
from launcher.spec.contenders import Lora, Training
from launcher.spec.stages import TrainSettings

WORKER = """
import json, os, signal, sys, time
mode, job, rank, local_rank, descriptor = sys.argv[1:]
scratch = os.path.dirname(job)

def report(**value):
    os.write(int(descriptor), (json.dumps(value) + "\\n").encode())

def ready():
    open(f"{scratch}/ready-{rank}", "w").write(str(os.getpid()))

if mode == "report" and rank == "4":
    report(kind="heartbeat", step=1, total=2, measures={"loss": 0.5})
    report(kind="checkpoint", directory="/checkpoint", step=1)
    measured = {"training_seconds": 1.5, "tokens": 9, "trained_tokens": 3, "throughput": {"tok_s": 6.0}}
    report(kind="facts", measured=measured)
if mode == "fail":
    failure = {"reason": "bad-experiment", "what": f"worker {rank}", "where": "", "problems": [], "next": ""}
    report(kind="failure", failure=failure)
    sys.exit(10)
if mode == "crash" and rank == "1":
    while not os.path.exists(f"{scratch}/ready-0"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "stop":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if mode in ("crash", "stop", "sleep"):
    ready()
    time.sleep(600)
"""


class RecordingReporter:
    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self._stop = stop
        self.heartbeats: list[tuple[int, int, dict[str, float]]] = []
        self.checkpoints: list[tuple[Path, int]] = []
        self.facts: list[MeasuredTraining] = []

    @property
    def stop_requested(self) -> bool:
        return self._stop()

    def heartbeat(self, step: int, total: int, measures: dict[str, float]) -> None:
        self.heartbeats.append((step, total, measures))

    def checkpoint(self, directory: Path, step: int) -> None:
        self.checkpoints.append((directory, step))

    def measured(self, facts: MeasuredTraining) -> None:
        self.facts.append(facts)


def training_job(scratch: Path) -> TrainingJob:
    settings = TrainSettings(
        task="chat",
        prompt="chat",
        lora=Lora(),
        training=Training(steps=2),
        seed=1,
        processes=2,
        threads=2,
        device="cpu",
    )
    return TrainingJob(
        settings=settings,
        model=scratch / "model",
        data=scratch / "data",
        out=scratch / "out",
        scratch=scratch,
        checkpoint=None,
        base=BaseReference("base", "revision"),
    )


def pool(scratch: Path, mode: str, first_rank: int = 0) -> WorkerPool:
    script = scratch / "worker.py"
    script.write_text(WORKER)
    command = (sys.executable, "-I", "-S", str(script), mode)
    return WorkerPool(training_job(scratch), count=2, first_rank=first_rank, command=command)


def ready_workers(scratch: Path) -> list[int]:
    """Process ids of the workers that are ready."""
    texts = [path.read_text() for path in scratch.glob("ready-*")]
    return [int(text) for text in texts if text]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_training_job_is_the_same_after_json(tmp_path: Path) -> None:
    job = training_job(tmp_path).of_worker(3, 1)
    for each in (job, replace(job, checkpoint=tmp_path / "step-000002", rendezvous="tcp://node:1")):
        assert from_json(to_json(each)) == each


@pytest.mark.parametrize(
    ("raised", "exit_code", "reason"),
    [
        (StoppedAtStep(), 143, None),
        (Failure(Reason.DIVERGED, "the loss is nan"), 23, Reason.DIVERGED),
        (RuntimeError("bug"), 1, Reason.INTERNAL),
        (MemoryError(), 1, Reason.OUT_OF_MEMORY),
    ],
    ids=["stopped", "failure", "error", "out of memory"],
)
def test_a_worker_reports_why_it_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    exit_code: int,
    reason: Reason | None,
) -> None:
    def train(job: TrainingJob, _reporter: object) -> None:
        assert (job.rank, job.local_rank) == (3, 1)
        raise raised

    monkeypatch.setattr(worker, "train", train)
    (tmp_path / "job.json").write_text(to_json(training_job(tmp_path)))
    read_end, write_end = os.pipe()
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / "job.json"), "3", "1", str(write_end)])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert worker.main() == exit_code
    finally:
        signal.signal(signal.SIGTERM, handler)
    os.set_blocking(read_end, False)
    with os.fdopen(read_end, "rb", buffering=0) as stream:
        reports = [from_line(line) for line in (stream.read(1 << 16) or b"").splitlines()]
    if reason is None:
        assert reports == []
    else:
        (report,) = reports
        assert isinstance(report, FailureReport)
        assert report.failure.reason is reason


def test_reports_of_worker_zero_are_forwarded(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    with pool(tmp_path, "report", first_rank=4) as workers:
        workers.wait(reporter)
    assert reporter.heartbeats == [(1, 2, {"loss": 0.5})]
    assert reporter.checkpoints == [(Path("/checkpoint"), 1)]
    assert reporter.facts == [MeasuredTraining(1.5, 9, 3, {"tok_s": 6.0})]


def test_a_stop_reaches_every_worker(tmp_path: Path) -> None:
    reporter = RecordingReporter(stop=lambda: len(ready_workers(tmp_path)) == 2)
    with pytest.raises(StoppedAtStep), pool(tmp_path, "stop") as workers:
        workers.wait(reporter)


def test_one_failure_is_raised_if_all_workers_fail(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"worker [01]") as raised, pool(tmp_path, "fail") as workers:
        workers.wait(RecordingReporter())
    assert raised.value.reason is Reason.BAD_EXPERIMENT


def test_a_killed_worker_ends_the_others(tmp_path: Path) -> None:
    ended = pytest.raises(Failure, match="worker 1 of 2 ended with code -9")
    with ended as raised, pool(tmp_path, "crash") as workers:
        workers.wait(RecordingReporter())
    assert raised.value.reason is Reason.KILLED
    (other,) = ready_workers(tmp_path)
    assert not alive(other)


def test_workers_die_with_a_killed_stage_process(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from test_worker_pool import pool\n"
        "with pool(Path(sys.argv[1]), 'sleep'):\n"
        "    time.sleep(600)\n"
    )
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    stage = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        wait_until(lambda: len(ready_workers(tmp_path)) == 2)
        stage.send_signal(signal.SIGKILL)
    finally:
        stage.kill()
        stage.wait()
    wait_until(lambda: not any(map(alive, ready_workers(tmp_path))))
