"""Artifacts in S3-compatible storage.

An artifact `a/b` is one object `a/b/_SUCCESS.json` and the objects that its manifest names, below
`a/.data/b/<unique>/`: every commit has its own prefix, so two writers never touch each other's bytes, and the
manifest is written last. Objects that no manifest names are garbage.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.spec.names import relative_path
from launcher.store import conditional_create as creation
from launcher.store import object_layout
from launcher.store.address import S3Address
from launcher.store.artifact import (
    MANIFEST,
    FileEntry,
    Leftover,
    Manifest,
    Progress,
    decode,
    digest_file,
    encode,
    require_directory,
    scan,
)
from launcher.store.download import Downloader
from launcher.store.file_locks import locked
from launcher.store.local_state import cache_home, state_directory, write_whole
from launcher.store.multipart_probe import probe_multipart
from launcher.store.parallel import run_all, started
from launcher.store.part_ledger import PartLedger
from launcher.store.parts import etag_matches, part_size, ranges
from launcher.store.rate_limiter import RateLimiter
from launcher.store.s3_artifact import S3Artifact, fetch_input
from launcher.store.s3_client import Absent, Client, md5
from launcher.store.upload import Uploader
from launcher.system.json_text import parse_json

_DATA = ".data"
#: How long the result of a probe of the server is kept.
_PROBE_HOLDS_S = 3600.0
#: After this time a damaged manifest is no longer repaired by its writer.
_REPAIR_TIME_S = 3600.0


class S3Store:
    """A Store in one bucket. Safe to use from many threads, processes and machines at once."""

    poll_interval_s = 1.0

    def __init__(
        self,
        address: S3Address,
        *,
        writable: bool = True,
        patient: bool = False,
        progress: Progress | None = None,
        state: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        """`state` and `cache` are this machine's directories; they default to the user's own."""
        self.place = address
        self.client = Client(address, patient=patient)
        self.progress = progress
        cap = address.bandwidth_mib_s
        rate_limiter = RateLimiter(cap * (1 << 20) if cap else None)
        self.uploader = Uploader(self.client, rate_limiter)
        self.downloader = Downloader(self.client, rate_limiter)
        self.local_root = state_directory(str(address), state)
        self.cache = cache or cache_home()
        self._conditional: bool | None = None
        self._recall()
        if writable:
            # Fails now if the bucket cannot be reached or written.
            if self._conditional is None:
                self._probe()
            else:
                next(iter(self.client.objects(address.key("runs/-"))), None)

    @property
    def address(self) -> str:
        return str(self.place)

    # -- features of the server ------------------------------------------------------------
    def _recall(self) -> None:
        try:
            known = parse_json((self.local_root / "server.json").read_bytes())
            # A record without "multipart" is older than that probe.
            if known["multipart"] and 0 <= time.time() - float(known["at"]) < _PROBE_HOLDS_S:
                self._conditional = bool(known["conditional"])
                self.client.etag_is_md5 = bool(known["etag_is_md5"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # the first write probes the server

    def _probe(self) -> bool:
        self._conditional = creation.probe(self.client)
        probe_multipart(self.client)
        known = {
            "at": time.time(),
            "conditional": self._conditional,
            "etag_is_md5": self.client.etag_is_md5,
            "multipart": True,
        }
        write_whole(self.local_root / "server.json", encode(known))
        return self._conditional

    @property
    def conditional(self) -> bool:
        """Whether this server honours create-once."""
        return self._probe() if self._conditional is None else self._conditional

    # -- artifacts ------------------------------------------------------------------------
    def commit(self, prefix: str, directory: Path, meta: dict[str, Any]) -> Manifest:
        relative_path(prefix)
        there = self._committed(prefix)
        if there is not None:
            shutil.rmtree(directory)
            return there
        require_directory(directory)
        paths = scan(directory)
        objects = object_layout.pack(
            [(name, path, path.stat().st_size) for name, path in paths], self.place.limits
        )
        conditional = self.conditional
        with self._ledger(prefix) as ledger:
            entries: dict[str, FileEntry] = {}
            base = self._data_key(prefix, ledger.data)
            with started([partial(_hash_into, entries, name, path) for name, path in paths], 2):
                digests = self.uploader.upload(objects, base, ledger, self.progress)
            self._check_written(base, objects, digests)
            storage = {
                "data": ledger.data,
                **object_layout.describe(objects, digests, self.place.limits.part_bytes),
            }
            manifest = Manifest(dict(sorted(entries.items())), meta, storage)
            manifest = self._publish_manifest(prefix, manifest, conditional)
            ledger.remove()
        if prefix.startswith("stages/"):
            self._seed(manifest, directory)
        shutil.rmtree(directory)
        return manifest

    def _committed(self, prefix: str) -> Manifest | None:
        """The committed manifest, if there is one. A damaged one that its writer has not repaired is deleted."""
        try:
            return self._manifest(prefix)
        except Failure as failure:
            if failure.reason is not Reason.CORRUPT_ARTIFACT:
                raise
            key = self.place.key(f"{prefix}/{MANIFEST}")
            if time.time() - self.client.head(key).modified_at < _REPAIR_TIME_S:
                raise
            self.client.delete([key])
            return None

    def _manifest(self, prefix: str) -> Manifest | None:
        key = self.place.key(f"{prefix}/{MANIFEST}")
        where = f"s3://{self.place.bucket}/{key}"
        try:
            data = self.client.get_checked(key).data
        except Absent:
            return None
        return Manifest.from_json(decode(data, where), where)

    def _publish_manifest(self, prefix: str, manifest: Manifest, conditional: bool) -> Manifest:
        """Write the manifest and read it back; returns another writer's if that came first."""
        key = self.place.key(f"{prefix}/{MANIFEST}")
        creation.create(self.client, key, encode(manifest.to_json()), conditional=conditional)
        committed = self._manifest(prefix)
        if committed is None:
            raise Failure(
                Reason.STORE_FAILED,
                "the manifest is missing right after it was written",
                where=f"s3://{self.place.bucket}/{key}",
                next_step="the server has lost data: check it, then launcher retry RUN",
            )
        if committed.storage.get("data") != manifest.storage["data"]:
            base = self._data_key(prefix, manifest.storage["data"])
            self.client.delete([stat.key for stat in self.client.objects(base)])
        return committed

    def _check_written(
        self, base: str, objects: list[object_layout.ObjectPlan], digests: dict[str, list[str]]
    ) -> None:
        """Verify size and ETag of every object, before the manifest names them. Raises Failure(STORE_FAILED)."""
        expected = {f"{base}{one.name}": (one.size_bytes, digests[one.name]) for one in objects}
        for _ in range(self.place.limits.wrong_answers):
            there = {stat.key: stat for stat in self.client.objects(base)}
            wrong = [
                key
                for key, (size, parts) in expected.items()
                if key not in there
                or there[key].size_bytes != size
                or not etag_matches(self.client, there[key].etag, parts)
            ]
            if not wrong:
                return
        raise Failure(
            Reason.STORE_FAILED,
            f"{len(wrong)} of {len(expected)} objects are missing or differ from what was written",
            where=f"s3://{self.place.bucket}/{wrong[0]}",
            next_step="the server has lost data: check it, then launcher retry RUN",
        )

    def _data_key(self, prefix: str, data: str) -> str:
        parent, _, name = prefix.rpartition("/")
        folder = f"{parent}/{_DATA}/{name}/" if parent else f"{_DATA}/{name}/"
        return self.place.key(f"{folder}{data}/" if data else folder)

    @contextmanager
    def _ledger(self, prefix: str) -> Iterator[PartLedger]:
        """The ledger of uploads to `prefix` on this machine; without a file if another process holds it."""
        base = self.local_root / "uploads" / prefix.replace("/", "%")
        fresh = uuid.uuid4().hex[:16]
        with locked(base.with_name(f"{base.name}.lock"), wait=False) as held:
            yield PartLedger(base.with_name(f"{base.name}.json") if held else None, fresh)

    def _seed(self, manifest: Manifest, directory: Path) -> None:
        """Move the committed files to this machine's cache, if that is a rename."""
        tree = S3Artifact.tree(self.cache, manifest)
        for name in manifest.files:
            target = tree / name
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # On another file system: the next reader downloads it.
            with contextlib.suppress(OSError):
                os.chmod(directory / name, 0o444)
                os.rename(directory / name, target)

    def open(self, prefix: str) -> S3Artifact:
        relative_path(prefix)
        manifest = self._manifest(prefix)
        if manifest is None:
            where = f"s3://{self.place.bucket}/{self.place.key(prefix)}"
            raise Failure(Reason.MISSING_INPUT, "nothing is committed here", where=where)
        data = str(manifest.storage.get("data", ""))
        return S3Artifact(manifest, self.downloader, self._data_key(prefix, data), self.cache, self.progress)

    def exists(self, prefix: str) -> bool:
        relative_path(prefix)
        try:
            self.client.head(self.place.key(f"{prefix}/{MANIFEST}"))
        except Absent:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        relative_path(prefix)
        objects, folders = self.client.children(f"{self.place.key(prefix)}/")
        return sorted(name for name in objects | folders if not name.startswith("."))

    # -- small objects --------------------------------------------------------------------
    def put_json(self, path: str, value: Any, *, create_once: bool = True) -> bool:
        relative_path(path)
        key = self.place.key(path)
        if create_once:
            return creation.create(self.client, key, encode(value), conditional=self.conditional)
        creation.overwrite(self.client, key, encode(value))
        return True

    def get_json(self, path: str) -> Any:
        relative_path(path)
        try:
            data = self.client.get_checked(self.place.key(path)).data
        except Absent:
            return None
        return decode(data, f"s3://{self.place.bucket}/{self.place.key(path)}")

    def age_s(self, path: str) -> float | None:
        relative_path(path)
        try:
            return self.client.age_s(self.place.key(path))
        except Absent:
            return None

    # -- outside files --------------------------------------------------------------------
    def put_input(self, source: Path) -> str:
        try:
            size = source.stat().st_size
            entry = digest_file(source)
        except OSError as error:
            raise Failure(Reason.MISSING_INPUT, f"cannot read: {error.strerror}", where=str(source)) from None
        planned = object_layout.ObjectPlan(
            entry.sha256, (object_layout.Piece(entry.sha256, source, 0, size),)
        )
        if self._has_whole(planned):
            return entry.sha256
        _ = self.conditional  # finds out whether ETags are MD5s
        with self._ledger(f"inputs/{entry.sha256}") as ledger:
            self.uploader.upload([planned], self.place.key("inputs/"), ledger, self.progress)
            ledger.remove()
        if digest_file(source) != entry:
            self.client.delete([self.place.key(f"inputs/{entry.sha256}")])
            raise Failure(Reason.BAD_DATA, "the file changed while it was read", where=str(source))
        return entry.sha256

    def _has_whole(self, planned: object_layout.ObjectPlan) -> bool:
        """Whether the input exists with the right size and, if ETags are MD5s, the right bytes."""
        try:
            there = self.client.head(self.place.key(f"inputs/{planned.name}"))
        except Absent:
            return False
        if there.size_bytes != planned.size_bytes:
            return False
        spans = ranges(planned.size_bytes, part_size(planned.size_bytes, self.place.limits.part_bytes))
        return etag_matches(self.client, there.etag, [md5(planned.read(*span)) for span in spans])

    def has_input(self, sha256: str) -> bool:
        relative_path(sha256)
        try:
            self.client.head(self.place.key(f"inputs/{sha256}"))
        except Absent:
            return False
        return True

    def input(self, sha256: str) -> Path:
        relative_path(sha256)
        return fetch_input(self.downloader, self.place.key(f"inputs/{sha256}"), sha256, self.cache)

    # -- logs and other plain files -------------------------------------------------------
    def local_path(self, path: str) -> Path:
        relative_path(path)
        return self.local_root / path

    def publish(self, path: str) -> None:
        source = self.local_path(path)
        try:
            size = source.stat().st_size
        except FileNotFoundError:
            return
        planned = object_layout.ObjectPlan(path, (object_layout.Piece(path, source, 0, size),))
        self.uploader.upload([planned], self.place.key(""), PartLedger(None, ""))

    def fetch(self, path: str) -> Path | None:
        own = self.local_path(path)
        if own.is_file():
            return own
        try:
            data = self.client.get_checked(self.place.key(path)).data
        except Absent:
            return None
        target = self.local_root / "published" / path
        write_whole(target, data)
        return target

    # -- deletion -------------------------------------------------------------------------
    def delete(self, prefix: str) -> None:
        relative_path(prefix)
        try:
            manifest = self._manifest(prefix)
        except Failure as failure:
            if failure.reason is not Reason.CORRUPT_ARTIFACT:
                raise
            manifest = None
        # The manifest first: a partly deleted artifact must not be readable.
        self.client.delete([self.place.key(f"{prefix}/{MANIFEST}")])
        if manifest is not None:
            base = self._data_key(prefix, str(manifest.storage.get("data", "")))
            self._delete_below(base)
        # rclone's server fails on deleting a key that is only a folder.
        with contextlib.suppress(Absent):
            self.client.delete([self.client.head(self.place.key(prefix)).key])
        self._delete_below(f"{self.place.key(prefix)}/")
        shutil.rmtree(self.local_path(prefix), ignore_errors=True)

    def _delete_below(self, base: str) -> None:
        keys = sorted(
            (stat.key for stat in self.client.objects(base)), key=lambda key: not key.endswith(MANIFEST)
        )
        run_all([partial(self.client.delete, [key]) for key in keys], self.place.limits.parallel)

    def usage(self, prefix: str) -> int:
        relative_path(prefix)
        total = sum(stat.size_bytes for stat in self.client.objects(f"{self.place.key(prefix)}/"))
        return total + sum(stat.size_bytes for stat in self.client.objects(self._data_key(prefix, "")))

    def leftovers(self) -> tuple[Leftover, ...]:
        """Data that no manifest names, old claims and probes, and unfinished uploads."""
        sizes: dict[str, int] = {}
        newest: dict[str, float] = {}
        root = self.place.key("")
        for stat in self.client.objects(root):
            group = _group(stat.key.removeprefix(root))
            if group:
                sizes[group] = sizes.get(group, 0) + stat.size_bytes
                newest[group] = max(newest.get(group, 0.0), stat.modified_at)
        found = [
            Leftover(group, sizes[group], newest[group])
            for group in sorted(sizes)
            if not self._is_named(group)
        ]
        for key, upload, begun_at in self.client.unfinished(root):
            found.append(Leftover(f"{key.removeprefix(root)}?uploadId={upload}", 0, begun_at))
        return tuple(found)

    def _is_named(self, group: str) -> bool:
        """Whether a committed manifest names this data."""
        parent, marker, rest = group.partition(f"{_DATA}/")
        if not marker:
            return False
        name, data = rest.rsplit("/", 1)
        try:
            manifest = self._manifest(f"{parent}{name}")
        except Failure as failure:
            if failure.reason is not Reason.CORRUPT_ARTIFACT:
                raise
            return True  # unknown: keep it
        return manifest is not None and manifest.storage.get("data") == data

    def discard(self, leftover: Leftover) -> None:
        path, _, upload = leftover.path.partition("?uploadId=")
        if upload:
            self.client.abort_upload(self.place.key(path), upload)
            return
        if not _group(f"{path}/x") and not _group(path):
            raise Failure(Reason.INTERNAL, "not a leftover", where=leftover.path)
        if self._is_named(path):
            return  # committed since it was listed
        self._delete_below(f"{self.place.key(path)}/")
        self.client.delete([self.place.key(path)])

    def lock(self, path: str) -> AbstractContextManager[bool]:
        return locked(self.local_path(path), wait=False)


def _group(path: str) -> str:
    """The leftover that an object would belong to: its data prefix, or the claim or probe itself; else ''."""
    parts = path.split("/")
    if _DATA in parts:
        index = parts.index(_DATA)
        return "/".join(parts[: index + 3]) if len(parts) > index + 3 else ""
    if creation.CLAIMS in parts or creation.PROBES in parts:
        return path
    return ""


def _hash_into(entries: dict[str, FileEntry], name: str, path: Path) -> None:
    entries[name] = digest_file(path)
