"""Artifacts in a directory: staged under a hidden name, synced, then renamed into place."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.spec.names import relative_path
from launcher.store.artifact import (
    MANIFEST,
    FileEntry,
    Leftover,
    Manifest,
    decode,
    digest_file,
    encode,
    require_directory,
    scan,
)
from launcher.store.file_locks import locked

_UNCOMMITTED = ".uncommitted-"


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn an OSError into a Failure with a next step."""
    try:
        yield
    except OSError as error:
        reason = Reason.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Reason.STORE_FAILED
        raise Failure(reason, f"cannot write the store: {error.strerror or error}", where=where) from error


class DirectoryStore:
    """Artifacts in a directory of one file system: commits are atomic because they are renames."""

    poll_interval_s = 0.1

    def __init__(self, root: Path, *, writable: bool = True) -> None:
        self.root = root
        if not writable:
            return
        with explained(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f"{_UNCOMMITTED}probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"tuneyard")
            probe.unlink()

    @property
    def address(self) -> str:
        return self.root.as_uri()

    @property
    def local_root(self) -> Path:
        return self.root

    def local_path(self, path: str) -> Path:
        relative_path(path)
        return self.root / path

    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        target = self.local_path(prefix)
        files: dict[str, FileEntry] = {}
        require_directory(directory)
        with explained(str(target)):
            staged = target.with_name(f"{_UNCOMMITTED}{target.name}-{uuid.uuid4().hex}")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _move(directory, staged)
                for name, path in scan(staged):
                    _sync(path)
                    files[name] = digest_file(path)
                manifest = Manifest(files, meta)
                _write_synced(staged / MANIFEST, encode(manifest.to_json()))
                for path in {staged, *(p for p in staged.rglob("*") if p.is_dir())}:
                    _sync(path)
                try:
                    staged.rename(target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if self.exists(prefix):
                        return self.open(prefix).manifest
                    # Files without a manifest are no artifact.
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
        with explained(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = target.with_name(f"{_UNCOMMITTED}{target.name}-{uuid.uuid4().hex}")
            try:
                _write_synced(staged, encode(value))
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
            data = target.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Failure(Reason.STORE_FAILED, f"cannot read: {error.strerror}", where=str(target)) from None
        return decode(data, str(target))

    def age_s(self, path: str) -> float | None:
        target = self.local_path(path)
        probe = self.root / f"{_UNCOMMITTED}clock-{uuid.uuid4().hex}"
        with explained(str(target)):
            try:
                # A new file has the time of the file system, which may be another machine's.
                probe.touch()
                return max(0.0, probe.stat().st_mtime - target.stat().st_mtime)
            except (FileNotFoundError, NotADirectoryError):
                return None
            finally:
                probe.unlink(missing_ok=True)

    def put_input(self, source: Path) -> str:
        try:
            entry = digest_file(source)
        except OSError as error:
            raise Failure(Reason.MISSING_INPUT, f"cannot read: {error.strerror}", where=str(source)) from None
        target = self.local_path(f"inputs/{entry.sha256}")
        if target.is_file() and target.stat().st_size == entry.size_bytes:
            return entry.sha256
        with explained(str(target)):
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

    def has_input(self, sha256: str) -> bool:
        return self.local_path(f"inputs/{sha256}").is_file()

    def input(self, sha256: str) -> Path:
        target = self.local_path(f"inputs/{sha256}")
        if not target.is_file():
            raise Failure(
                Reason.MISSING_INPUT,
                f"the input file {sha256[:12]}… is not in the store",
                where=str(target),
            )
        if digest_file(target).sha256 != sha256:
            raise Failure(
                Reason.CORRUPT_ARTIFACT,
                "the bytes are not those that were pushed",
                where=str(target),
                next_step=f"delete {target}, then submit again on a machine that has the file",
            )
        return target

    def delete(self, prefix: str) -> None:
        target = self.local_path(prefix)
        with explained(str(target)):
            # Renamed first: a crash leaves garbage, not a partial artifact.
            trash = target.with_name(f"{_UNCOMMITTED}{target.name}-{uuid.uuid4().hex}")
            try:
                target.rename(trash)
            except FileNotFoundError:
                return
            if trash.is_dir():
                shutil.rmtree(trash)
            else:
                trash.unlink()

    def publish(self, path: str) -> None:
        """Does nothing: `local_path` is in the store."""

    def fetch(self, path: str) -> Path | None:
        target = self.local_path(path)
        return target if target.is_file() else None

    def usage(self, prefix: str) -> int:
        return _size_bytes(self.local_path(prefix))

    def garbage(self) -> tuple[Path, ...]:
        """Staged directories and files that were never committed."""
        return tuple(sorted(self.root.rglob(f"{_UNCOMMITTED}*")))

    def leftovers(self) -> tuple[Leftover, ...]:
        found = []
        for path in self.garbage():
            try:
                modified_at = path.lstat().st_mtime
            except FileNotFoundError:
                continue  # committed or removed since it was listed
            found.append(Leftover(path.relative_to(self.root).as_posix(), _size_bytes(path), modified_at))
        return tuple(found)

    def discard(self, leftover: Leftover) -> None:
        target = self.root / leftover.path
        if not target.name.startswith(_UNCOMMITTED):
            raise Failure(Reason.INTERNAL, "not a leftover", where=leftover.path)
        with explained(str(target)):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    @contextmanager
    def lock(self, path: str) -> Iterator[bool]:
        target = self.local_path(path)
        with ExitStack() as stack:
            # `explained` covers only taking the lock, not the caller's code.
            with explained(str(target)):
                held = stack.enter_context(locked(target, wait=False))
            yield held


@dataclass(frozen=True)
class DirectoryArtifact:
    """An artifact of a DirectoryStore; its files are read in place."""

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
                next_step=f"delete {self.root}, then launcher retry RUN runs the stage again",
            )
        return target

    def directory(self) -> Path:
        for name in self.manifest.files:
            self.path(name)
        return self.root


def _size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a directory; files deleted meanwhile count as 0."""
    total = 0
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        try:
            total += file.lstat().st_size if not file.is_dir() else 0
        except FileNotFoundError:
            continue
    return total


def _move(directory: Path, staged: Path) -> None:
    """Rename, or copy from another file system (shutil.move hides the errno of a full disk)."""
    try:
        directory.rename(staged)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for name, path in scan(directory):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / name)
        staged.mkdir(exist_ok=True)
        shutil.rmtree(directory)


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
