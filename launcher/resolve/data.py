"""The files of a data source: found in a directory, in a lock, or named on the hub."""

from __future__ import annotations

from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.resolve.hub import commit_of
from launcher.resolve.resolution import Resolution, check_locked
from launcher.spec.experiment import Experiment
from launcher.spec.lock import Lock
from launcher.spec.stages import HubData
from launcher.spec.tasks import SourceFacts, TaskFacts, facts_of


def data_of(
    name: str, source: SourceFacts, directory: Path | None, resolution: Resolution, locked: Lock | None
) -> tuple[dict[str, str], HubData | None]:
    """The files of a source, or the hub repository they are downloaded from; nothing if it generates its rows."""
    if source.generated:
        return {}, None
    # A lock without data, or with another source's, says nothing about this one: then a directory is needed.
    if locked is not None and directory is None and _holds(locked, source):
        return dict(locked.data_files), locked.data_source
    files, hub_data = _find(name, source, directory, resolution)
    if locked is not None:
        check_locked(files, locked.data_files, f"--data {directory}")
    return files, hub_data


def choose_source(experiment: Experiment, directory: Path) -> Experiment:
    """The experiment itself, or one that reads `directory` if its source generates its rows.

    The first source of the task whose files are in `directory` is taken. Raises Failure(MISSING_INPUT)
    if there is none.
    """
    facts = facts_of(experiment.task)
    if facts is None or not facts.sources[experiment.data.source].generated:
        return experiment
    candidates = _with_files(facts)
    for name, source in candidates.items():
        if _root(name, source, directory) is not None:
            return _reading(experiment, name)
    if not candidates:
        what, next_step = f"task '{facts.name}' generates its rows and reads no directory", "leave --data out"
    else:
        what = (
            f"holds none of the data sets {', '.join(candidates)}"
            if directory.is_dir()
            else "no such directory"
        )
        built_in = experiment.data.source
        next_step = f"see docs/data.md for the layouts, or leave --data out to use the built-in {built_in}"
    raise Failure(Reason.MISSING_INPUT, what, where=f"--data {directory}", next_step=next_step)


def with_locked_source(experiment: Experiment, locked: Lock) -> Experiment:
    """The experiment itself, or one that reads the lock's data if its source generates its rows."""
    facts = facts_of(experiment.task)
    if facts is None or not facts.sources[experiment.data.source].generated:
        return experiment
    for name, source in _with_files(facts).items():
        if _holds(locked, source):
            return _reading(experiment, name)
    return experiment


def _with_files(facts: TaskFacts) -> dict[str, SourceFacts]:
    return {name: source for name, source in facts.sources.items() if not source.generated}


def _reading(experiment: Experiment, source: str) -> Experiment:
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"source": source})})


def _holds(locked: Lock, source: SourceFacts) -> bool:
    """Whether a lock has the data of this source: its files, or the repository to download them from."""
    if locked.data_source is not None:
        return locked.data_source.repository == source.repository
    return bool(source.required) and set(source.required) <= locked.data_files.keys()


def _root(name: str, source: SourceFacts, directory: Path) -> Path | None:
    """`directory`, or its folder with the source's name, if it holds the source's files; else None."""
    for root in (directory, directory / name):
        if source.required and all((root / file).is_file() for file in source.required):
            return root
    return None


def _find(
    name: str, source: SourceFacts, directory: Path | None, resolution: Resolution
) -> tuple[dict[str, str], HubData | None]:
    if directory is None:
        if source.repository is None:
            raise Failure(
                Reason.MISSING_INPUT,
                f"source '{name}' reads a directory, and none was named",
                where="data",
                next_step=f"--data DIR with {', '.join(file.rstrip('?') for file in source.files)}",
            )
        revision = commit_of(source.repository, "main", "datasets")
        return {}, HubData(repository=source.repository, revision=revision, files=source.required)
    if not directory.is_dir():
        raise Failure(Reason.MISSING_INPUT, "no such directory", where=f"--data {directory}")
    root = _root(name, source, directory)
    if root is None:
        raise Failure(
            Reason.MISSING_INPUT,
            f"source '{name}' needs {', '.join(source.required)}",
            where=f"--data {directory}",
            next_step=f"name the directory that holds them, or its parent with a folder '{name}'",
        )
    found: dict[str, str] = {}
    for pattern in source.files:
        for path in sorted(root.glob(pattern.rstrip("?"))):
            found[path.relative_to(root).as_posix()] = resolution.digest(path)
    return found, None
