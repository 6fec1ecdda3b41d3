"""The files of a task of the user's own: digests, never imported."""

from __future__ import annotations

import hashlib
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.resolve.resolution import Resolution
from launcher.spec.names import relative_path
from launcher.spec.plan import canonical

#: Far more than a task's code; data goes into a source's files.
_MOST_FILES = 200
_NOT_INPUTS = ("__pycache__",)


def folder_files(folder: Path, resolution: Resolution) -> dict[str, str]:
    """Path in the folder -> sha256 of every file, caches and hidden files left out.

    Raises Failure(BAD_EXPERIMENT) for a link, a name that the store cannot take, or too many files.
    """
    problems = []
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        parts = name.split("/")
        if any(part.startswith(".") or part in _NOT_INPUTS for part in parts):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            problems.append(f"{name}: neither a file nor a folder")
        elif path.is_file():
            try:
                relative_path(name)
            except ValueError as error:
                problems.append(str(error))
            paths[name] = path
    if len(paths) > _MOST_FILES:
        problems.append(f"{len(paths)} files; a task's folder holds its code, at most {_MOST_FILES} files")
    if problems:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "not a task's folder",
            where=str(folder),
            problems=tuple(problems),
            next_step="keep only the task's own files in it (docs/experiments.md)",
        )
    return {name: resolution.digest(path) for name, path in paths.items()}


def folder_digest(files: dict[str, str]) -> str:
    """The sha256 that names a folder's content: over its files' paths and digests."""
    return hashlib.sha256(canonical(files)).hexdigest()
