"""Artifacts: committed whole or not at all, verified on every read.

An artifact is a set of files under one prefix. It exists from the moment its manifest
(`_SUCCESS.json`: every file's size and sha256) is there; before that nobody sees it. A crash
leaves garbage that `garbage()` lists, never half an artifact under a good name.

The layout of the store is DESIGN's: `inputs/<sha256>`, `stages/<stage key>/`,
`runs/<run id>/{plan.json, work/<stage>/, attempts/<n>/}`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

from launcher.outcome import Failure, Reason

MANIFEST = "_SUCCESS.json"
FORMAT = 1
_CHUNK_BYTES = 4 << 20
_UNCOMMITTED = ".uncommitted-"


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact, as its manifest lists it."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `_SUCCESS.json` says: the files, and facts about how they came to be (`meta`, never hashed)."""

    files: dict[str, FileEntry]
    meta: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "files": {
                name: {"size_bytes": entry.size_bytes, "sha256": entry.sha256}
                for name, entry in sorted(self.files.items())
            },
            "meta": self.meta,
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Manifest:
        """Raises Failure(CORRUPT_ARTIFACT) where the manifest is not one."""
        try:
            if value["format"] > FORMAT:
                raise Failure(
                    Reason.UNSUPPORTED,
                    f"artifact format {value['format']} is newer than this launcher's {FORMAT}",
                    where=where,
                    next_step="pip install --upgrade tuneyard",
                )
            files = {
                str(name): FileEntry(int(entry["size_bytes"]), str(entry["sha256"]))
                for name, entry in value["files"].items()
            }
            for name in files:
                check_name(name)
            return cls(files, dict(value["meta"]))
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


class Store(Protocol):
    """Where artifacts live. Two backends keep the same promises: a directory and S3-compatible storage."""

    @property
    def address(self) -> str: ...

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

    def input(self, sha256: str) -> Path:
        """The outside file with that digest, verified. Raises Failure(MISSING_INPUT)."""
        ...

    def delete(self, prefix: str) -> None: ...


def digest_file(path: Path) -> FileEntry:
    """Size and sha256 of a file's bytes."""
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha.update(chunk)
            size += len(chunk)
    return FileEntry(size, sha.hexdigest())


def check_name(name: str) -> None:
    """Refuse what could leave its place: absolute, `..`, empty parts, hidden names, control characters."""
    if any(not part or part.startswith(".") for part in name.split("/")) or re.search(
        r"[\x00-\x1f\\\ud800-\udfff]", name
    ):
        raise ValueError(f"'{name}' cannot be a name in the store")


def open_store(address: str, *, writable: bool = True) -> DirectoryStore:
    """The store at `file:///dir` or a plain directory path.

    With `writable` it is created where it is not there, and tried out. Raises Failure(STORE_FAILED)
    where it cannot be written, Failure(UNSUPPORTED) for other schemes.
    """
    scheme, host, path, *_ = urlparse(address)
    if scheme == "file" and (host or not path):
        raise Failure(
            Reason.USAGE,
            "file:// is followed by an absolute path, with three slashes in all",
            where=f"--store {address}",
            next_step=f"--store file:///{host}{path}",
        )
    if scheme in ("", "file"):
        root = Path(unquote(path)) if scheme else Path(address)
        return DirectoryStore(root.expanduser().absolute(), writable=writable)
    raise Failure(
        Reason.UNSUPPORTED,
        f"the store {scheme}:// is not supported yet",
        where="--store",
        next_step="use a directory: --store file:///path",
    )


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn an operating system's error into a Failure that says what to do."""
    try:
        yield
    except OSError as error:
        reason = Reason.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Reason.STORE_FAILED
        raise Failure(reason, f"cannot write the store: {error.strerror or error}", where=where) from error


class DirectoryStore:
    """Artifacts in a directory of one file system; renames within it are what makes commits atomic."""

    def __init__(self, root: Path, *, writable: bool = True) -> None:
        self.root = root
        if not writable:
            return
        with _explained(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f"{_UNCOMMITTED}probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"tuneyard")
            probe.unlink()

    @property
    def address(self) -> str:
        return self.root.as_uri()

    def local_path(self, path: str) -> Path:
        """Where `path` lies on this machine: for logs and locks, which are no artifacts."""
        check_name(path)
        return self.root / path

    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        target = self.local_path(prefix)
        files: dict[str, FileEntry] = {}
        if directory.is_symlink():
            raise Failure(Reason.INTERNAL, "only plain directories can be committed", where=str(directory))
        with _explained(str(target)):
            staged = target.with_name(f"{_UNCOMMITTED}{target.name}-{uuid.uuid4().hex}")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                # A rename where possible, a copy from another file system.
                shutil.move(directory, staged)
                for path in sorted(staged.rglob("*")):
                    if path.is_symlink() or not (path.is_file() or path.is_dir()):
                        raise Failure(
                            Reason.INTERNAL,
                            "only plain files can be committed",
                            where=str(path.relative_to(staged)),
                        )
                    if path.is_file():
                        name = path.relative_to(staged).as_posix()
                        check_name(name)
                        _sync(path)
                        files[name] = digest_file(path)
                manifest = Manifest(files, meta)
                _write_synced(staged / MANIFEST, _encode(manifest.to_json()))
                for path in {staged, *(p for p in staged.rglob("*") if p.is_dir())}:
                    _sync(path)
                try:
                    staged.rename(target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if self.exists(prefix):
                        return self.open(prefix).manifest
                    # Files without a manifest are nobody's artifact: out of the way with them.
                    self.delete(prefix)
                    staged.rename(target)
                _sync(target.parent)
                return manifest
            finally:
                shutil.rmtree(staged, ignore_errors=True)

    def open(self, prefix: str) -> DirectoryArtifact:
        root = self.local_path(prefix)
        value = self.get_json(f"{prefix}/{MANIFEST}")
        if value is None:
            raise Failure(Reason.MISSING_INPUT, "nothing is committed here", where=str(root))
        return DirectoryArtifact(root, Manifest.from_json(value, str(root / MANIFEST)))

    def exists(self, prefix: str) -> bool:
        return (self.local_path(prefix) / MANIFEST).is_file()

    def list(self, prefix: str) -> list[str]:
        try:
            names = os.listdir(self.local_path(prefix))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Failure(
                Reason.STORE_FAILED, f"cannot read: {error.strerror}", where=str(self.local_path(prefix))
            ) from None
        return sorted(name for name in names if not name.startswith("."))

    def put_json(self, path: str, value: Any, *, create_once: bool = True) -> bool:
        target = self.local_path(path)
        with _explained(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = target.with_name(f"{_UNCOMMITTED}{target.name}-{uuid.uuid4().hex}")
            try:
                _write_synced(staged, _encode(value))
                if not create_once:
                    staged.replace(target)
                    return True
                try:
                    os.link(staged, target)
                except FileExistsError:
                    return False
                _sync(target.parent)
                return True
            finally:
                staged.unlink(missing_ok=True)

    def get_json(self, path: str) -> Any:
        target = self.local_path(path)
        try:
            return json.loads(target.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Failure(Reason.STORE_FAILED, f"cannot read: {error.strerror}", where=str(target)) from None
        except ValueError:
            raise Failure(Reason.CORRUPT_ARTIFACT, "not JSON", where=str(target)) from None

    def put_input(self, source: Path) -> str:
        try:
            entry = digest_file(source)
        except OSError as error:
            raise Failure(Reason.MISSING_INPUT, f"cannot read: {error.strerror}", where=str(source)) from None
        target = self.local_path(f"inputs/{entry.sha256}")
        if target.is_file() and target.stat().st_size == entry.size_bytes:
            return entry.sha256
        with _explained(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = target.with_name(f"{_UNCOMMITTED}{entry.sha256}-{uuid.uuid4().hex}")
            try:
                shutil.copyfile(source, staged)
                _sync(staged)
                if digest_file(staged) != entry:
                    raise Failure(Reason.BAD_DATA, "the file changed while it was read", where=str(source))
                staged.replace(target)
                _sync(target.parent)
            finally:
                staged.unlink(missing_ok=True)
        return entry.sha256

    def input(self, sha256: str) -> Path:
        target = self.local_path(f"inputs/{sha256}")
        if not target.is_file():
            raise Failure(
                Reason.MISSING_INPUT,
                f"the outside file {sha256[:12]}… is not in the store",
                where=str(target),
            )
        if digest_file(target).sha256 != sha256:
            raise Failure(
                Reason.CORRUPT_ARTIFACT, "the bytes are not those that were pushed", where=str(target)
            )
        return target

    def delete(self, prefix: str) -> None:
        target = self.local_path(prefix)
        with _explained(str(target)):
            # Renamed first, so that a crash leaves garbage and never half an artifact under a good name.
            doomed = target.with_name(f"{_UNCOMMITTED}{target.name}-{uuid.uuid4().hex}")
            try:
                target.rename(doomed)
            except FileNotFoundError:
                return
            shutil.rmtree(doomed)

    def garbage(self) -> tuple[Path, ...]:
        """What crashes left behind: staged directories and files that were never committed."""
        return tuple(sorted(self.root.rglob(f"{_UNCOMMITTED}*")))

    def locked(self, path: str) -> bool:
        """Whether a living process holds the lock at `path`. Creates nothing, and askers do not disturb each other."""
        try:
            handle = os.open(self.local_path(path), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    @contextmanager
    def lock(self, path: str) -> Iterator[bool]:
        """Hold an exclusive lock that dies with the process; yields False at once where another holds it."""
        target = self.local_path(path)
        with _explained(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(handle)


@dataclass(frozen=True)
class DirectoryArtifact:
    """An artifact of a DirectoryStore; its files are read where they lie."""

    root: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        entry = self.manifest.files.get(name)
        if entry is None:
            raise Failure(Reason.MISSING_INPUT, f"the artifact has no file '{name}'", where=str(self.root))
        target = self.root / name
        try:
            found = digest_file(target)
        except OSError as error:
            raise Failure(
                Reason.CORRUPT_ARTIFACT, f"cannot read: {error.strerror}", where=str(target)
            ) from None
        if found != entry:
            raise Failure(
                Reason.CORRUPT_ARTIFACT,
                f"{found.size_bytes} bytes with sha256 {found.sha256[:12]}…, "
                f"committed were {entry.size_bytes} with {entry.sha256[:12]}…",
                where=str(target),
                next_step=f"delete {self.root}, and the stage is carried out again",
            )
        return target

    def directory(self) -> Path:
        for name in self.manifest.files:
            self.path(name)
        return self.root


def _encode(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
