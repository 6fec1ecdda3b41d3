"""The training process of a job agrees with its record: a paused or cancelled job does not train."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from serving import MODEL

from jobs.rehearsal import training
from jobs.rehearsal.job_files import row_of
from jobs.rehearsal.job_store import FineTuningJob, Hyperparameters, JobStore
from jobs.rehearsal.recipe import Recipe, train_settings
from jobs.rehearsal.state import State


class Process:
    """A training process that succeeds unless it is killed."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.killed = False

    async def reports(self) -> AsyncIterator[dict[str, Any]]:
        return
        yield {}

    async def wait(self) -> int:
        return -9 if self.killed else self.code

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def queued(state: State) -> FineTuningJob:
    settings = train_settings(Recipe(), examples=12, epochs=1, batch_rows=4, multiplier=1.0, seed=1)
    job = FineTuningJob(
        tenant="one",
        id="ftjob-1",
        model=MODEL,
        training_file="file-1",
        seed=1,
        status="queued",
        hyperparameters=Hyperparameters(n_epochs=1),
        settings=settings,
        billed_tokens=1,
    )
    JobStore(state).add(job)
    return job


def trained(
    state: State, job: FineTuningJob, process: Process, meanwhile: Callable[[training.Trainer], None]
) -> str:
    """The status of `job` after training; `meanwhile` runs while the process starts."""
    trainer = training.Trainer(state, {MODEL: Path("model")}, Recipe(), (), lambda _tenant: 0)

    async def start(_arguments: list[str], _log: Path) -> Process:
        meanwhile(trainer)
        return process

    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.ChildProcess, "start", start)
            await trainer._train(job)

    asyncio.run(run())
    found = JobStore(state).get("one", job.id)
    assert found is not None
    return found.status


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_job_ended_during_process_start_does_not_train(state: State, status: str) -> None:
    job, process = queued(state), Process()

    def end(trainer: training.Trainer) -> None:
        JobStore(state).update(job, status=status)
        trainer.interrupt(job.id, kill=status == "cancelled")

    assert trained(state, job, process, end) == status
    assert process.killed


def test_server_stop_does_not_count_as_a_failed_try(state: State) -> None:
    job = queued(state)
    for _ in range(5):

        def stop(trainer: training.Trainer) -> None:
            trainer._stopping = True

        assert trained(state, job, Process(code=-15), stop) == "running"


def test_job_fails_after_three_killed_processes(state: State) -> None:
    job = queued(state)
    statuses = [trained(state, job, Process(code=-9), lambda _trainer: None) for _ in range(3)]
    assert statuses == ["running", "running", "failed"]


def test_validation_crash_fails_the_job(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobStore(state).update(queued(state), status="validating_files")
    trainer = training.Trainer(state, {MODEL: Path("model")}, Recipe(), (), lambda _tenant: 0)

    def broken(_job: FineTuningJob) -> None:
        raise MemoryError

    monkeypatch.setattr(trainer, "_read_files", broken)
    asyncio.run(trainer._validate(job))
    found = JobStore(state).get("one", job.id)
    assert found is not None
    assert found.error is not None
    assert (found.status, found.error.code) == ("failed", "server_error")


def test_developer_messages_are_trained_as_system_messages() -> None:
    example = {
        "messages": [{"role": "developer", "content": "Answer."}, {"role": "assistant", "content": "yes"}]
    }
    assert [message["role"] for message in row_of(example).messages] == ["system", "assistant"]
