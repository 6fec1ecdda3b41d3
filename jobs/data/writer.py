"""What prepare writes into a directory: parts, uploads, the files that rows point at, and the card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.data import card
from jobs.data.splits import collect
from jobs.data.upload import upload_bytes
from jobs.tasks import registry
from jobs.tasks.contract import Progress
from jobs.tasks.prompts import PLAIN_PROMPT
from jobs.tasks.registry import Task
from jobs.tasks.rows import Parts, Row, write_rows
from launcher.spec.experiment import Data
from launcher.spec.tasks import SettingValue


def prepare(
    task: Task | str,
    data: Data,
    directory: Path,
    out: Path,
    progress: Progress,
    settings: Mapping[str, SettingValue] | None = None,
) -> dict[str, Any]:
    """Write everything into `out`, which exists and is empty; returns the card.

    `directory` holds the source's files; a source that generates its rows needs none.
    """
    loaded = registry.task(task)
    generated = loaded.facts.sources[data.source].generated if data.source in loaded.facts.sources else False
    base = out if generated else directory
    parts = collect(loaded, data, base, progress)
    if loaded.copy_files is not None and base != out:
        parts = loaded.copy_files(parts, base, out)
    if loaded.with_settings is not None:
        parts = loaded.with_settings(parts, {**loaded.facts.resolved_settings({}), **(settings or {})})
    parts = _each_row(parts, lambda row: _labelled(row, loaded))
    for part, rows in parts.items():
        write_rows(out / f"{part}.jsonl", rows)
    (out / "upload").mkdir()
    (out / "upload" / "train.jsonl").write_bytes(upload_bytes(parts.train))
    (out / "upload" / "validation.jsonl").write_bytes(upload_bytes(parts.validation))
    found = card.build(loaded, data, parts, out)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (out / "card.json").write_text(text, encoding="utf-8", newline="\n")
    return found


def _each_row(parts: Parts, change: Callable[[Row], Row]) -> Parts:
    train, validation, test = ([change(row) for row in rows] for _, rows in parts.items())
    return replace(parts, train=train, validation=validation, test=test)


def _labelled(row: Row, task: Task) -> Row:
    """The row with its task's name, and with its plain prompt if later stages may not run the task's code."""
    fields = {**row.fields, "task": task.name}
    return replace(
        row, fields=fields if task.is_built_in else {**fields, PLAIN_PROMPT: task.plain_prompt(row)}
    )
