"""Layout-free checkpoints: adapter and optimizer state whole, by name, so that any topology resumes them.

What else a resume needs follows from (seed, step): the data order and every dropout mask are
pure functions of them, so a checkpoint holds no generator's state.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launcher.store import Store

_PREFIX = "step-"
_ADAPTER = "adapter.safetensors"
_MOMENTS = "moments.safetensors"
_PROGRESS = "progress.json"


@dataclass
class Progress:
    """How far training is, counted over all attempts. `seconds` is time in steps, evaluation not included."""

    step: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    seconds: float = 0.0
    #: One entry a step, as `curve.jsonl` has it.
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint, read back."""

    progress: Progress
    weights: dict[str, Any]
    moments: dict[str, Any]


def write(directory: Path, progress: Progress, weights: dict[str, Any], moments: dict[str, Any]) -> None:
    """Put a checkpoint's files into `directory`, which must not exist yet."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True)
    save_file(weights, directory / _ADAPTER)
    save_file(moments, directory / _MOMENTS)
    (directory / _PROGRESS).write_text(json.dumps(asdict(progress)) + "\n", encoding="utf-8")


def read(directory: Path) -> Checkpoint:
    """The checkpoint whose (verified) files lie in `directory`."""
    from safetensors.torch import load_file

    progress = Progress(**json.loads((directory / _PROGRESS).read_bytes()))
    return Checkpoint(progress, load_file(directory / _ADAPTER), load_file(directory / _MOMENTS))


def name(step: int) -> str:
    """The checkpoint's name in the stage's work area; names sort by step."""
    return f"{_PREFIX}{step:06d}"


def committed(store: Store, work: str) -> list[str]:
    """Names of the committed checkpoints in the work area, oldest first."""
    return [item for item in store.list(work) if item.startswith(_PREFIX) and store.exists(f"{work}/{item}")]


def commit(store: Store, work: str, directory: Path, step: int) -> None:
    """Commit `directory` as the checkpoint of `step`; only then delete older ones."""
    store.commit(f"{work}/{name(step)}", directory, {"step": step})
    remove_older(store, work, name(step))


def remove_older(store: Store, work: str, kept: str) -> None:
    """Delete the committed checkpoints before `kept`, which must be committed."""
    for older in committed(store, work):
        if older < kept:
            store.delete(f"{work}/{older}")
