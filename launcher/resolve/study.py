"""An experiment with its resolved names, its lock file and its plan.

`launcher plan`, `render` and `submit` and the Python API all start here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.resolve.resolver import Resolution, choose_source, read_lock, resolve
from launcher.spec.experiment import Experiment
from launcher.spec.lock import Lock
from launcher.spec.plan import Plan
from launcher.spec.planner import plan


@dataclass(frozen=True)
class Study:
    """An experiment and its plan; `resolution` has the lock and the locations of outside files."""

    experiment: Experiment
    resolution: Resolution
    plan: Plan


def make_study(
    experiment: Experiment,
    *,
    data_directory: Path | None = None,
    lock_path: Path | None = None,
    relock: bool = False,
    notify: Callable[[str], None] = lambda _text: None,
) -> Study:
    """Resolve the names of `experiment` and plan it.

    Data in `data_directory` replaces the built-in sample. `lock_path` is read if the file exists and `relock` is
    false; otherwise it is written. `notify` gets a line for each of the two. Raises Failure with every problem.
    """
    if relock and lock_path is None:
        raise Failure(Reason.USAGE, "--relock needs a lock file", next_step="name it: --lock FILE")
    if data_directory is not None:
        chosen = choose_source(experiment, data_directory)
        if chosen is not experiment:
            notify(f"data: {data_directory} has '{chosen.data.source}', used instead of the sample")
        experiment = chosen
    locked = read_lock(lock_path) if lock_path is not None and lock_path.exists() and not relock else None
    resolution = resolve(experiment, data_directory=data_directory, locked=locked)
    if lock_path is not None and locked is None:
        _write_lock(lock_path, resolution.lock)
        notify(f"lock: written to {lock_path}")
    return Study(experiment, resolution, plan(resolution.experiment, resolution.lock))


def _write_lock(path: Path, lock: Lock) -> None:
    try:
        path.write_text(lock.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise Failure(
            Reason.USAGE,
            f"cannot write: {error.strerror}",
            where=f"--lock {path}",
            next_step="name a file that can be written",
        ) from None
