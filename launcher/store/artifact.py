"""What every store keeps and promises: manifests, artifacts and the Store protocol; no backend in here.

An artifact is a set of files under one prefix. It exists from the moment its manifest
(`_SUCCESS.json`: every file's size and sha256, and a digest of itself) is there; before that
nobody sees it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from launcher.outcome import Failure, Reason
from launcher.spec.names import relative_path

MANIFEST = "_SUCCESS.json"
FORMAT = 1
CHUNK_BYTES = 4 << 20
#: Told as files move: (bytes done, bytes in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact, as its manifest lists it."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `_SUCCESS.json` says: the files, facts about how they came to be (`meta`, never hashed into a
    stage key), and where an object store keeps the bytes (`storage`, empty in a directory)."""

    files: dict[str, FileEntry]
    meta: dict[str, Any]
    storage: dict[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files.values())

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "format": FORMAT,
            "files": {
                name: {"size_bytes": entry.size_bytes, "sha256": entry.sha256}
                for name, entry in sorted(self.files.items())
            },
            "meta": self.meta,
        }
        if self.storage:
            value["storage"] = self.storage
        return {**value, "digest": _digest(value)}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Manifest:
        """Raises Failure(CORRUPT_ARTIFACT) where the manifest is not one, or not the one that was written."""
        try:
            if value["format"] > FORMAT:
                raise Failure(
                    Reason.UNSUPPORTED,
                    f"artifact format {value['format']} is newer than this launcher's {FORMAT}",
                    where=where,
                    next_step="pip install --upgrade tuneyard",
                )
            content = {key: part for key, part in value.items() if key != "digest"}
            if value["digest"] != _digest(content):
                raise ValueError("it does not have the digest it claims")
            files = {
                str(name): FileEntry(int(entry["size_bytes"]), str(entry["sha256"]))
                for name, entry in value["files"].items()
            }
            for name in files:
                relative_path(name)
            return cls(files, dict(value["meta"]), dict(value.get("storage", {})))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Failure(
                Reason.CORRUPT_ARTIFACT, f"the manifest is malformed: {error}", where=where
            ) from None


class Artifact(Protocol):
    """A committed set of files. Every read is checked against the manifest."""

    @property
    def manifest(self) -> Manifest: ...

    def path(self, name: str) -> Path:
        """A local, verified, read-only copy of one file. Raises Failure(CORRUPT_ARTIFACT | MISSING_INPUT)."""
        ...

    def directory(self) -> Path:
        """A local directory with every file, all verified."""
        ...


@dataclass(frozen=True)
class Leftover:
    """What a crash left behind: never visible as an artifact, only bytes that nobody will read."""

    path: str
    size_bytes: int
    modified_at: float


class Store(Protocol):
    """Where artifacts live. Two backends keep the same promises: a directory and S3-compatible storage."""

    #: How often it is reasonable to look for something new.
    poll_interval_s: float

    @property
    def address(self) -> str: ...

    @property
    def local_root(self) -> Path:
        """The directory of this machine below which `local_path` lies."""
        ...

    def local_path(self, path: str) -> Path:
        """Where `path` lies on this machine: for logs, locks and scratch, which are no artifacts."""
        ...

    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        """Make the files of `directory` the artifact at `prefix`, whole; `directory` is consumed.

        Where another writer committed first, theirs stays and is returned.
        """
        ...

    def open(self, prefix: str) -> Artifact:
        """Raises Failure(MISSING_INPUT) where nothing is committed at `prefix`."""
        ...

    def exists(self, prefix: str) -> bool: ...

    def list(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted; what is not committed yet is not listed."""
        ...

    def put_json(self, path: str, value: Any, *, create_once: bool = True) -> bool:
        """Write one small JSON object whole. False where `create_once` found it there already."""
        ...

    def get_json(self, path: str) -> Any:
        """The object at `path`, or None where there is none."""
        ...

    def put_input(self, source: Path) -> str:
        """Copy an outside file to `inputs/<sha256>` and return its digest."""
        ...

    def has_input(self, sha256: str) -> bool: ...

    def input(self, sha256: str) -> Path:
        """The outside file with that digest, verified. Raises Failure(MISSING_INPUT)."""
        ...

    def publish(self, path: str) -> None:
        """Copy what was written at `local_path(path)` (a log, a report) to where others can `fetch` it."""
        ...

    def fetch(self, path: str) -> Path | None:
        """A local file with what was published at `path`, or is being written here; None where nothing is."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove what is at and below `prefix`; a manifest goes before the files it names."""
        ...

    def usage(self, prefix: str) -> int:
        """Bytes stored at and below `prefix`."""
        ...

    def leftovers(self) -> tuple[Leftover, ...]:
        """What crashes left behind. A commit that is under way looks the same: mind `modified_at`."""
        ...

    def discard(self, leftover: Leftover) -> None: ...

    def locked(self, path: str) -> bool:
        """Whether a living process of this machine holds the lock at `path`."""
        ...

    def lock(self, path: str) -> AbstractContextManager[bool]:
        """Hold a lock of this machine that dies with the process; False at once where another holds it."""
        ...


def digest_file(path: Path) -> FileEntry:
    """Size and sha256 of a file's bytes."""
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha.update(chunk)
            size += len(chunk)
    return FileEntry(size, sha.hexdigest())


def encode(value: Any) -> bytes:
    """JSON as the store writes it. Raises ValueError for what is not JSON (NaN)."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def scan(directory: Path) -> list[tuple[str, Path]]:
    """Every file below `directory` by its name, sorted. Raises Failure(INTERNAL) for anything but plain files."""
    found = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Failure(Reason.INTERNAL, "only plain files can be committed", where=name)
        if path.is_file():
            relative_path(name)
            found.append((name, path))
    return found


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
