"""A job's process and its record never disagree: what is paused or cancelled does not go on training."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from serving import MODEL

from jobs.rehearsal import training
from jobs.rehearsal.job_results import row_of
from jobs.rehearsal.recipe import Recipe, train_settings
from jobs.rehearsal.state import State, Stored


class Process:
    """A training process that ends when it is killed, and in success where it is left alone."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.killed = False

    async def reports(self) -> AsyncIterator[dict[str, Any]]:
        return
        yield {}

    async def ended(self) -> int:
        return -9 if self.killed else self.code

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def queued(state: State) -> Stored:
    settings = train_settings(Recipe(), examples=12, epochs=1, batch_rows=4, multiplier=1.0, seed=1)
    body = {
        "id": "ftjob-1",
        "model": MODEL,
        "status": "queued",
        "hyperparameters": {"n_epochs": 1},
        "user_provided_suffix": None,
        "_settings": settings.model_dump(mode="json"),
        "_billed_tokens": 1,
    }
    return state.add("job", "one", body)


def trained(
    state: State, job: Stored, process: Process, meanwhile: Callable[[training.Trainer], None]
) -> str:
    """The status of `job` after its process was made; `meanwhile` happens while it is being made."""
    trainer = training.Trainer(state, {MODEL: Path("model")}, Recipe(), (), lambda _tenant: 0)

    async def start(_arguments: list[str], _log: Path) -> Process:
        meanwhile(trainer)
        return process

    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.Child, "start", start)
            await trainer._train(job)

    asyncio.run(run())
    found = state.get("job", "one", job.id)
    assert found is not None
    return str(found.body["status"])


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_what_is_ended_while_its_process_is_made_does_not_train(state: State, status: str) -> None:
    job, process = queued(state), Process()

    def end(trainer: training.Trainer) -> None:
        state.update(job, status=status)
        trainer.interrupt(job.id, for_good=status == "cancelled")

    assert trained(state, job, process, end) == status
    assert process.killed


def test_a_server_that_is_stopped_costs_a_job_no_try(state: State) -> None:
    job = queued(state)
    for _ in range(5):

        def stop(trainer: training.Trainer) -> None:
            trainer._stopping = True

        assert trained(state, job, Process(code=-15), stop) == "running"


def test_a_process_that_is_killed_again_and_again_fails_its_job(state: State) -> None:
    job = queued(state)
    statuses = [trained(state, job, Process(code=-9), lambda _trainer: None) for _ in range(3)]
    assert statuses == ["running", "running", "failed"]


def test_files_that_cannot_be_judged_fail_the_job(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    job = state.update(queued(state), status="validating_files")
    trainer = training.Trainer(state, {MODEL: Path("model")}, Recipe(), (), lambda _tenant: 0)

    def broken(_job: Stored) -> None:
        raise MemoryError

    monkeypatch.setattr(trainer, "_read_files", broken)
    asyncio.run(trainer._validate(job))
    found = state.get("job", "one", job.id)
    assert found is not None
    assert (found.body["status"], found.body["error"]["code"]) == ("failed", "server_error")


def test_a_developers_message_is_learnt_as_it_is_asked() -> None:
    example = {
        "messages": [{"role": "developer", "content": "Answer."}, {"role": "assistant", "content": "yes"}]
    }
    assert [message["role"] for message in row_of(example).messages] == ["system", "assistant"]
