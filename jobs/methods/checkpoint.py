"""Layout-free checkpoints: adapter and optimizer state whole and by name, so any topology can resume them.

Data order and dropout masks are pure functions of (seed, step), so a checkpoint stores no state of a
random generator.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.store import Store

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "step-"
_ADAPTER = "adapter.safetensors"
_MOMENTS = "moments.safetensors"
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class CurvePoint:
    """One step of the loss curve: a line of `curve.jsonl`. `trained_tokens` is cumulative."""

    step: int
    loss: float
    learning_rate: float
    trained_tokens: int
    #: None if the step was not evaluated.
    validation_loss: float | None = None

    def to_json(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Progress:
    """Training so far, over all attempts. `seconds` is time in steps; evaluation is not counted."""

    step: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    curve: tuple[CurvePoint, ...] = ()

    def after(self, point: CurvePoint, *, tokens: int, seconds: float) -> Progress:
        """The progress after one more step of `tokens` tokens."""
        return replace(
            self,
            step=point.step,
            tokens=self.tokens + tokens,
            trained_tokens=point.trained_tokens,
            seconds=self.seconds + seconds,
            curve=(*self.curve, point),
        )

    def to_json(self) -> dict[str, object]:
        """The format of `progress.json`, where trained tokens are called `learnt_tokens`."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "learnt_tokens": self.trained_tokens,
            "seconds": self.seconds,
            "curve": [point.to_json() for point in self.curve],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Progress:
        return cls(
            step=value["step"],
            tokens=value["tokens"],
            trained_tokens=value["learnt_tokens"],
            seconds=value["seconds"],
            curve=tuple(CurvePoint(**point) for point in value["curve"]),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint's content. `moments` as in `Engine.moments`."""

    progress: Progress
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]


def write(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's files to `directory`, which must not exist yet."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True)
    save_file(checkpoint.weights, directory / _ADAPTER)
    save_file(checkpoint.moments, directory / _MOMENTS)
    text = json.dumps(checkpoint.progress.to_json()) + "\n"
    (directory / _PROGRESS).write_text(text, encoding="utf-8")


def read(directory: Path) -> Checkpoint:
    """Read the checkpoint from a directory of verified files."""
    from safetensors.torch import load_file

    progress = Progress.from_json(json.loads((directory / _PROGRESS).read_bytes()))
    return Checkpoint(progress, load_file(directory / _ADAPTER), load_file(directory / _MOMENTS))


def name(step: int) -> str:
    """The checkpoint's name in the stage's work area; names sort by step."""
    return f"{_PREFIX}{step:06d}"


def committed(store: Store, work: str) -> list[str]:
    """Names of the committed checkpoints in the work area, oldest first."""
    return [item for item in store.list(work) if item.startswith(_PREFIX) and store.exists(f"{work}/{item}")]


def commit(store: Store, work: str, directory: Path, step: int) -> None:
    """Commit `directory` as the checkpoint of `step`, then delete older ones."""
    store.commit(f"{work}/{name(step)}", directory, {"step": step})
    remove_older(store, work, name(step))


def remove_older(store: Store, work: str, newest: str) -> None:
    """Delete the committed checkpoints before `newest`, which must be committed."""
    for older in committed(store, work):
        if older < newest:
            store.delete(f"{work}/{older}")
