"""What follows from a job's record: its losses, its result file, its model's name, its rows, its newest checkpoint."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

from jobs.methods import checkpoint
from jobs.rehearsal.state import State, Stored
from jobs.tasks.rows import Row
from launcher.outcome import Failure
from launcher.store import DirectoryStore


def metrics_events(state: State, job: Stored) -> list[dict[str, Any]]:
    """Data of the job's metrics events, by step."""
    found = [one.body for one in state.list("event", owner=job.id) if one.body["type"] == "metrics"]
    return sorted((body["data"] for body in found), key=lambda data: data["step"])


def job_losses(state: State, job: Stored) -> dict[int, dict[str, float]]:
    wanted = ("train_loss", "valid_loss")
    return {
        data["step"]: {name: data[name] for name in wanted if data.get(name) is not None}
        for data in metrics_events(state, job)
    }


def metrics_csv(losses: dict[int, dict[str, float]]) -> bytes:
    """The result file. Accuracies are not measured here, so their columns are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"])
    for step, values in sorted(losses.items()):
        writer.writerow([step, values.get("train_loss"), "", values.get("valid_loss", ""), ""])
    return text.getvalue().encode()


def model_name(job: Stored) -> str:
    suffix = job.body["user_provided_suffix"] or ""
    kept = "".join(c for c in suffix.lower() if c.isascii() and (c.isalnum() or c in "-_"))
    return f"ft:{job.body['model']}:{job.tenant}:{kept}:{job.id[-8:]}"


def row_of(example: dict[str, Any]) -> Row:
    """An example as the engine reads it; a developer's message is the system's, as it is when answers are asked for."""
    messages = tuple(
        {
            "role": "system" if message["role"] == "developer" else message["role"],
            "content": message["content"] or "",
        }
        for message in example["messages"]
    )
    return Row("", messages, {"task": "chat"})


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint whose bytes are whole; what a crash left half is passed over."""
    store = DirectoryStore(directory)
    for name in reversed(checkpoint.committed(store, "checkpoints")):
        with contextlib.suppress(Failure):
            return store.open(f"checkpoints/{name}").directory()
    return None
