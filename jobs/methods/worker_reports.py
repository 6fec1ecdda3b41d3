"""Reports of a training worker to the process that started it: one JSON object per line of a pipe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.methods.training_facts import MeasuredTraining
from launcher.outcome import Failure


@dataclass(frozen=True)
class HeartbeatReport:
    """Progress of the training loop."""

    step: int
    total: int
    measures: dict[str, float]


@dataclass(frozen=True)
class CheckpointReport:
    """A checkpoint was written to `directory`."""

    directory: Path
    step: int


@dataclass(frozen=True)
class MeasuredReport:
    """Training finished."""

    facts: MeasuredTraining


@dataclass(frozen=True)
class FailureReport:
    """The failure with which a worker ends."""

    failure: Failure


WorkerReport = HeartbeatReport | CheckpointReport | MeasuredReport | FailureReport


def to_line(report: WorkerReport) -> str:
    """One report as a line of the pipe."""
    value: dict[str, object]
    if isinstance(report, HeartbeatReport):
        value = {"kind": "heartbeat", **vars(report)}
    elif isinstance(report, CheckpointReport):
        value = {"kind": "checkpoint", "directory": str(report.directory), "step": report.step}
    elif isinstance(report, MeasuredReport):
        value = {"kind": "facts", "measured": report.facts.to_json()}
    else:
        value = {"kind": "failure", "failure": report.failure.to_json()}
    return json.dumps(value) + "\n"


def from_line(line: bytes | str) -> WorkerReport:
    """A report from a line of the pipe."""
    return from_json(json.loads(line))


def from_json(value: dict[str, Any]) -> WorkerReport:
    kind = value["kind"]
    if kind == "heartbeat":
        return HeartbeatReport(value["step"], value["total"], value["measures"])
    if kind == "checkpoint":
        return CheckpointReport(Path(value["directory"]), value["step"])
    if kind == "facts":
        return MeasuredReport(MeasuredTraining(**value["measured"]))
    return FailureReport(Failure.from_json(value["failure"]))
