"""A training job as every worker gets it, and the interface through which it reports progress."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from jobs.methods.training_facts import MeasuredTraining
from jobs.models.adapters import BaseReference
from launcher.spec.stages import TrainSettings


@dataclass(frozen=True)
class TrainingJob:
    """Everything a worker needs. Only the ranks differ between the workers of a job."""

    settings: TrainSettings
    #: Directories of verified files.
    model: Path
    data: Path
    out: Path
    scratch: Path
    #: Checkpoint to continue from, or None to start.
    checkpoint: Path | None
    base: BaseReference
    rank: int = 0
    #: Rank among the workers of this machine.
    local_rank: int = 0
    #: tcp://host:port of the workers' rendezvous; None if all run on this machine.
    rendezvous: str | None = None

    @property
    def workers(self) -> int:
        return self.settings.processes

    @property
    def row_limit_tokens(self) -> int:
        """Tokens of the longest row that is trained. A row must fit into one micro-batch."""
        return min(self.settings.training.max_length_tokens, self.settings.training.micro_batch_tokens)

    def of_worker(self, rank: int, local_rank: int) -> TrainingJob:
        return replace(self, rank=rank, local_rank=local_rank)


class Reporter(Protocol):
    """What worker 0 reports to. Other workers report failures only."""

    @property
    def stop_requested(self) -> bool: ...

    def heartbeat(self, step: int, total: int, measures: dict[str, float]) -> None: ...

    def checkpoint(self, directory: Path, step: int) -> None:
        """Commit the checkpoint in `directory`, which is moved away."""
        ...

    def measured(self, facts: MeasuredTraining) -> None: ...


class StoppedAtStep(Exception):
    """Training stopped on request, after its checkpoint was passed to the reporter."""


def to_json(job: TrainingJob) -> str:
    """The job as text for `from_json` in another process."""
    fields = {**vars(job), "settings": job.settings.model_dump(mode="json"), "base": vars(job.base)}
    return json.dumps(fields, default=str)


def from_json(text: str) -> TrainingJob:
    value = json.loads(text)
    return TrainingJob(
        settings=TrainSettings.model_validate_json(json.dumps(value["settings"])),
        model=Path(value["model"]),
        data=Path(value["data"]),
        out=Path(value["out"]),
        scratch=Path(value["scratch"]),
        checkpoint=Path(value["checkpoint"]) if value["checkpoint"] else None,
        base=BaseReference(**value["base"]),
        rank=value["rank"],
        local_rank=value["local_rank"],
        rendezvous=value["rendezvous"],
    )
