"""Artifacts of S3-compatible storage, read through verified copies on this machine.

Every read verifies the copy again; a missing or damaged one is downloaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.store.artifact import FileEntry, Manifest, Progress, digest_file
from launcher.store.download import Downloader
from launcher.store.file_locks import locked
from launcher.store.local_state import write_whole
from launcher.store.parallel import run_all
from launcher.store.parts import part_size
from launcher.store.s3_client import Absent


class S3Artifact:
    """A committed artifact; `data_key` is the prefix of its objects."""

    def __init__(
        self,
        manifest: Manifest,
        downloader: Downloader,
        data_key: str,
        cache: Path,
        progress: Progress | None,
    ) -> None:
        self._manifest = manifest
        self._downloader = downloader
        self._data_key = data_key
        self._directory = self.tree(cache, manifest)
        self._progress = progress
        #: File name -> (pack, offset).
        self._packed = {
            name: (pack, int(offset))
            for pack, offsets in manifest.storage.get("packs", {}).items()
            for name, offset in offsets.items()
        }

    @staticmethod
    def tree(cache: Path, manifest: Manifest) -> Path:
        """The directory of verified copies of a manifest's files, named by their digests."""
        names = json.dumps({name: entry.sha256 for name, entry in sorted(manifest.files.items())})
        return cache / "artifacts" / hashlib.sha256(names.encode()).hexdigest()[:32]

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def path(self, name: str) -> Path:
        entry = self._manifest.files.get(name)
        if entry is None:
            raise Failure(Reason.MISSING_INPUT, f"the artifact has no file '{name}'", where=self._data_key)
        target = self._directory / name
        if not _is_good(target, entry):
            if name in self._packed:
                self._fetch_packed(name, entry)
            else:
                self._fetch_large(name, entry)
        return target

    def directory(self) -> Path:
        missing = [
            name
            for name, entry in self._manifest.files.items()
            if not _is_good(self._directory / name, entry)
        ]
        packs: dict[str, list[str]] = {}
        tasks: list[Callable[[], None]] = []
        for name in missing:
            if name in self._packed:
                packs.setdefault(self._packed[name][0], []).append(name)
            else:
                # A large file uses all connections by itself.
                self._fetch_large(name, self._manifest.files[name])
        tasks += [self._unpacking(pack, names) for pack, names in packs.items()]
        run_all(tasks, self._downloader.limits.parallel // 2)
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    # -- fetching -------------------------------------------------------------------------
    def _fetch_large(self, name: str, entry: FileEntry) -> None:
        target = self._directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        storage = self._manifest.storage
        # Processes of this machine that need the same file download it once.
        with locked(self._directory.with_name(f"{self._directory.name}.locks") / _flat(name), wait=True):
            if _is_good(target, entry):
                return
            try:
                self._downloader.download(
                    f"{self._data_key}files/{name}",
                    target,
                    entry.size_bytes,
                    entry.sha256,
                    part_bytes=part_size(entry.size_bytes, int(storage.get("part_bytes", 16 << 20))),
                    part_md5=storage.get("part_md5", {}).get(f"files/{name}", []),
                )
            except Absent:
                raise self._lost(name) from None

    def _fetch_packed(self, name: str, entry: FileEntry) -> None:
        pack, offset = self._packed[name]
        for _ in range(self._downloader.limits.wrong_answers):
            data = self._read(pack, offset, entry.size_bytes)
            if hashlib.sha256(data).hexdigest() == entry.sha256:
                self._keep(name, data)
                return
        raise self._spoilt(name)

    def _unpacking(self, pack: str, names: list[str]) -> Callable[[], None]:
        """Download the part of a pack that holds `names` with one request, and unpack it."""

        def work() -> None:
            wanted = {name: self._manifest.files[name] for name in names}
            first = min(self._packed[name][1] for name in names)
            end = max(self._packed[name][1] + entry.size_bytes for name, entry in wanted.items())
            for _ in range(self._downloader.limits.wrong_answers):
                data = memoryview(self._read(pack, first, end - first))
                for name, entry in list(wanted.items()):
                    start = self._packed[name][1] - first
                    part = data[start : start + entry.size_bytes]
                    if hashlib.sha256(part).hexdigest() == entry.sha256:
                        self._keep(name, part)
                        del wanted[name]
                if not wanted:
                    return
            raise self._spoilt(next(iter(wanted)))

        return work

    def _read(self, pack: str, first: int, size: int) -> bytes:
        if size == 0:
            return b""
        self._downloader.rate_limiter.take(size)
        try:
            return self._downloader.client.get(f"{self._data_key}{pack}", first, size).data
        except Absent:
            raise self._lost(pack) from None

    def _keep(self, name: str, data: bytes | memoryview) -> None:
        target = self._directory / name
        write_whole(target, data, mode=0o444)

    def _lost(self, name: str) -> Failure:
        return Failure(
            Reason.CORRUPT_ARTIFACT,
            f"the server does not have the committed file '{name}'",
            where=f"s3://{self._downloader.client.address.bucket}/{self._data_key}",
        )

    def _spoilt(self, name: str) -> Failure:
        return Failure(
            Reason.CORRUPT_ARTIFACT,
            f"the bytes of '{name}' are not those that were committed",
            where=f"s3://{self._downloader.client.address.bucket}/{self._data_key}",
        )


def fetch_input(downloader: Downloader, key: str, sha256: str, cache: Path) -> Path:
    """A verified copy of an input file. Raises Failure(MISSING_INPUT | CORRUPT_ARTIFACT)."""
    target = cache / "inputs" / sha256
    if target.is_file() and digest_file(target).sha256 == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{sha256}.lock"), wait=True):
        if target.is_file() and digest_file(target).sha256 == sha256:
            return target
        try:
            size = downloader.client.head(key).size_bytes
            part_bytes = part_size(size, downloader.limits.part_bytes)
            downloader.download(key, target, size, sha256, part_bytes=part_bytes, part_md5=[])
        except Absent:
            where = f"s3://{downloader.client.address.bucket}/{key}"
            what = f"the input file {sha256[:12]}… is not in the store"
            raise Failure(Reason.MISSING_INPUT, what, where=where) from None
    return target


def _is_good(path: Path, entry: FileEntry) -> bool:
    try:
        return path.stat().st_size == entry.size_bytes and digest_file(path) == entry
    except OSError:
        return False


def _flat(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
