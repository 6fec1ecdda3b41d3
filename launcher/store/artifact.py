"""Manifests, artifacts and the Store protocol, which all backends implement.

An artifact is a set of files under one prefix. It exists once its manifest exists (`_SUCCESS.json`: every file's
size and sha256, and a digest of itself).
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
from launcher.system.json_text import parse_json

MANIFEST = "_SUCCESS.json"
FORMAT = 1
CHUNK_BYTES = 4 << 20
#: Called while files move: (bytes done, bytes in total).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact, as its manifest lists it."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `_SUCCESS.json`.

    `meta` are facts about the files' origin, never hashed into a stage key. `storage` says where an object store
    keeps the bytes; it is empty in a directory.
    """

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
        """Raises Failure(CORRUPT_ARTIFACT) if the value is no manifest or does not match its own digest."""
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
                raise ValueError("its digest does not match its content")
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
    """A committed set of files. Every read is verified against the manifest."""

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
    """Bytes that a crash left: part of no artifact, never read."""

    path: str
    size_bytes: int
    modified_at: float


class Store(Protocol):
    """Where artifacts live. Two backends keep the same promises: a directory and S3-compatible storage."""

    #: A reasonable interval for polling, in seconds.
    poll_interval_s: float

    @property
    def address(self) -> str: ...

    @property
    def local_root(self) -> Path:
        """The directory of this machine below which `local_path` lies."""
        ...

    def local_path(self, path: str) -> Path:
        """The local path of `path`, for logs, locks and scratch files, which are no artifacts."""
        ...

    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        """Commit the files of `directory` as the artifact at `prefix`; `directory` is consumed.

        If another writer has committed first, that artifact stays and its manifest is returned.
        """
        ...

    def open(self, prefix: str) -> Artifact:
        """Raises Failure(MISSING_INPUT) if nothing is committed at `prefix`."""
        ...

    def exists(self, prefix: str) -> bool: ...

    def list(self, prefix: str) -> list[str]:
        """Names directly under `prefix`, sorted; what is not committed yet is not listed."""
        ...

    def put_json(self, path: str, value: Any, *, create_once: bool = True) -> bool:
        """Write one small JSON object whole. False if `create_once` and the object exists already."""
        ...

    def get_json(self, path: str) -> Any:
        """The object at `path`; None if there is none."""
        ...

    def age_s(self, path: str) -> float | None:
        """Seconds since the small object at `path` was written, by the store's clock; None if there is none."""
        ...

    def put_input(self, source: Path) -> str:
        """Copy an outside file to `inputs/<sha256>` and return its digest."""
        ...

    def has_input(self, sha256: str) -> bool: ...

    def input(self, sha256: str) -> Path:
        """The outside file with that digest, verified. Raises Failure(MISSING_INPUT)."""
        ...

    def publish(self, path: str) -> None:
        """Copy the file at `local_path(path)` (a log, a report) to the store, for `fetch` on other machines."""
        ...

    def fetch(self, path: str) -> Path | None:
        """A local copy of the file published at `path`, or the local file itself; None if there is neither."""
        ...

    def delete(self, prefix: str) -> None:
        """Delete everything at and below `prefix`; a reader never finds a manifest without its files."""
        ...

    def usage(self, prefix: str) -> int:
        """Bytes stored at and below `prefix`."""
        ...

    def leftovers(self) -> tuple[Leftover, ...]:
        """What crashes left. A commit that is under way looks the same until `modified_at` is old."""
        ...

    def discard(self, leftover: Leftover) -> None: ...

    def lock(self, path: str) -> AbstractContextManager[bool]:
        """Hold a lock of this machine that ends with the process; False, without waiting, if another holds it."""
        ...


def digest_file(path: Path) -> FileEntry:
    """Size and sha256 of a file's bytes."""
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha.update(chunk)
            size += len(chunk)
    return FileEntry(size, sha.hexdigest())


def decode(data: bytes, where: str) -> Any:
    """One JSON object of the store. Raises Failure(CORRUPT_ARTIFACT) for what `encode` cannot have written.

    Anybody who may write to the store chooses these bytes: too many, nested too deeply, or with numbers that are none.
    """
    if len(data) > MAX_JSON_BYTES:
        raise Failure(Reason.CORRUPT_ARTIFACT, f"larger than {MAX_JSON_BYTES} bytes", where=where)
    try:
        return parse_json(data)
    except ValueError:
        raise Failure(Reason.CORRUPT_ARTIFACT, "not JSON", where=where) from None


def encode(value: Any) -> bytes:
    """JSON as the store writes it. Raises ValueError for what is not JSON (NaN)."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


#: The plan of the largest study that is foreseen is a tenth of it.
MAX_JSON_BYTES = 64 << 20


def require_directory(directory: Path) -> None:
    """Raises Failure(INTERNAL) for what is no directory: its commit would publish an artifact without files."""
    if directory.is_symlink() or not directory.is_dir():
        raise Failure(Reason.INTERNAL, "only plain directories can be committed", where=str(directory))


def scan(directory: Path) -> list[tuple[str, Path]]:
    """Every file below `directory` as (name, path), sorted. Raises Failure(INTERNAL) for anything but plain files."""
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
