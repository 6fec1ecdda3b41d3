"""Files of a fine-tuning job: the result file, rows for training, checkpoints and adapters."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobs.methods import checkpoint
from jobs.rehearsal.job_store import StepMetrics
from jobs.tasks.rows import Row
from launcher.outcome import Failure
from launcher.spec.contenders import Lora
from launcher.store import DirectoryStore


def metrics_csv(steps: Iterable[StepMetrics]) -> bytes:
    """The result file. Accuracies are not measured, so their columns are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"])
    for metrics in steps:
        losses = metrics.losses
        writer.writerow([metrics.step, losses.get("train_loss"), "", losses.get("valid_loss", ""), ""])
    return text.getvalue().encode()


def row_of(example: dict[str, Any]) -> Row:
    """A training row. `developer` messages become `system` messages, as in chat completions."""
    messages = tuple(
        {
            "role": "system" if message["role"] == "developer" else message["role"],
            "content": message["content"] or "",
        }
        for message in example["messages"]
    )
    return Row("", messages)


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of the job in `directory` whose files are complete."""
    store = DirectoryStore(directory)
    for name in reversed(checkpoint.committed(store, "checkpoints")):
        with contextlib.suppress(Failure):
            return store.open(f"checkpoints/{name}").directory()
    return None


def write_adapter(directory: Path, step: int, lora: Lora) -> str:
    """Copy the adapter of a checkpoint, with its configuration; returns the new directory's name."""
    adapter = directory / f"adapter-{step:06d}"
    adapter.mkdir(exist_ok=True)
    shutil.copyfile(
        directory / "checkpoints" / checkpoint.name(step) / "adapter.safetensors",
        adapter / "adapter_model.safetensors",
    )
    config = {"lora_alpha": lora.alpha, "r": lora.r, "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return adapter.name
