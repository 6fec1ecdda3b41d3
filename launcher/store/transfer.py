"""Moving bytes: in parallel parts, resumed by skipping parts that match, at no more than a given pace."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.store.artifact import Progress
from launcher.store.local_state import explained, write_whole
from launcher.store.object_layout import ObjectPlan
from launcher.store.s3_client import Absent, Client, md5

_MIB = 1 << 20
#: S3 allows 10,000 parts.
_MOST_PARTS = 9_900


class Pace:
    """At most `bytes_per_s` over time, for all threads together. Infinite where none is given."""

    def __init__(
        self,
        bytes_per_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock, self._sleep = clock, sleep
        self._free_at = clock()
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until `size` more bytes may move."""
        if not self.bytes_per_s:
            return
        with self._lock:
            starts = max(self._free_at, self._clock())
            self._free_at = starts + size / self.bytes_per_s
        wait = starts - self._clock()
        if wait > 0:
            self._sleep(wait)


class Crew:
    """Threads that work off tasks; the first failure stops the others and is raised by `join`."""

    def __init__(self, tasks: Iterable[Callable[[], None]], workers: int) -> None:
        self._tasks = deque(tasks)
        self._failure: list[BaseException] = []
        count = min(workers, len(self._tasks))
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._failure:
            try:
                task = self._tasks.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:  # raised again by `join`, in the caller's thread
                self._failure.append(error)

    @property
    def failed(self) -> bool:
        return bool(self._failure)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self._failure:
            raise self._failure[0]


def part_size(size_bytes: int, base_bytes: int) -> int:
    """Bytes of each part of an object (the last may be smaller); follows from its size alone."""
    least = -(-size_bytes // _MOST_PARTS)
    return max(base_bytes, -(-least // _MIB) * _MIB)


def ranges(size_bytes: int, each: int) -> list[tuple[int, int]]:
    """(first byte, bytes) of every part; one empty part for an empty object."""
    return [(first, min(each, size_bytes - first)) for first in range(0, size_bytes, each)] or [(0, 0)]


class Ledger:
    """What an unfinished upload has done, in a file beside; every claim in it is checked before it is believed."""

    def __init__(self, path: Path | None, data: str) -> None:
        """`data` names the commit's own prefix, unless the file knows an older one to continue."""
        self.path = path
        self._lock = threading.Lock()
        content: dict[str, Any] = {}
        if path is not None:
            try:
                content = json.loads(path.read_bytes())
            except (OSError, ValueError):
                content = {}
        if not isinstance(content, dict) or not isinstance(content.get("data"), str):
            content = {"data": data, "uploads": {}, "done": {}}
        self.data: str = content["data"]
        self.uploads: dict[str, str] = dict(content.get("uploads", {}))
        self.done: dict[str, list[str]] = dict(content.get("done", {}))

    def begun(self, name: str, upload: str) -> None:
        with self._lock:
            self.uploads[name] = upload
            self._save()

    def finished(self, name: str, digests: list[str]) -> None:
        with self._lock:
            self.uploads.pop(name, None)
            self.done[name] = digests
            self._save()

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        if self.path is not None:
            content = {"data": self.data, "uploads": self.uploads, "done": self.done}
            write_whole(self.path, json.dumps(content).encode())


@dataclass
class _Upload:
    """One object on its way up."""

    plan: ObjectPlan
    key: str
    part_bytes: int
    upload: str = ""
    digests: dict[int, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spans(self) -> list[tuple[int, int]]:
        return ranges(self.plan.size_bytes, self.part_bytes)


class Transfer:
    """Uploads and downloads through one client."""

    def __init__(self, client: Client, pace: Pace) -> None:
        self.client = client
        self.pace = pace
        self.limits = client.limits

    # -- up -------------------------------------------------------------------------------
    def upload(
        self, objects: list[ObjectPlan], base: str, ledger: Ledger, progress: Progress | None = None
    ) -> dict[str, list[str]]:
        """Write every object below the key `base`; returns each one's part digests (MD5).

        What an earlier try has sent and still matches is not sent again. Raises Failure.
        """
        meter = _Meter(sum(planned.size_bytes for planned in objects), progress)
        tasks: list[Callable[[], None]] = []
        found: dict[str, list[str]] = {}
        for planned in objects:
            if self._is_done(planned, base, ledger):
                found[planned.name] = ledger.done[planned.name]
                meter.add(planned.size_bytes)
                continue
            size = part_size(planned.size_bytes, self.limits.part_bytes)
            one = _Upload(planned, f"{base}{planned.name}", size)
            tasks += self._tasks(one, ledger, meter, found)
        Crew(tasks, self.limits.parallel).join()
        if self.client.etag_is_md5 is False:
            # This server's ETags tell nothing: what arrived is read back.
            Crew(
                [lambda one=one: self._read_back(one, base, found[one.name]) for one in objects],  # type: ignore[misc]
                self.limits.parallel,
            ).join()
        return found

    def _read_back(self, planned: ObjectPlan, base: str, digests: list[str]) -> None:
        key = f"{base}{planned.name}"
        spans = ranges(planned.size_bytes, part_size(planned.size_bytes, self.limits.part_bytes))
        for (first, size), digest in zip(spans, digests, strict=True):
            for _ in range(self.limits.wrong_answers):
                if size == 0 or md5(self.client.get(key, first, size).data) == digest:
                    break
            else:
                self.client.delete([key])
                raise Failure(
                    Reason.NETWORK,
                    "what was written arrived wrong",
                    where=f"s3://{self.client.address.bucket}/{key}",
                    next_step="check the network and the server, then launcher retry RUN",
                )

    def _is_done(self, planned: ObjectPlan, base: str, ledger: Ledger) -> bool:
        claimed = ledger.done.get(planned.name)
        if claimed is None:
            return False
        try:
            there = self.client.head(f"{base}{planned.name}")
        except Absent:
            return False
        spans = ranges(planned.size_bytes, part_size(planned.size_bytes, self.limits.part_bytes))
        return (
            there.size_bytes == planned.size_bytes
            and self.fits(there.etag, claimed)
            and [md5(planned.read(*span)) for span in spans] == claimed
        )

    def fits(self, etag: str, digests: list[str]) -> bool:
        """Whether the server's ETag of a whole object speaks against parts with these MD5s.

        For an object of several parts some servers give something else than S3's `<md5>-<parts>`;
        its parts' own ETags were compared when they were sent.
        """
        if len(digests) > 1 and not etag.endswith(f"-{len(digests)}"):
            return True
        return not etag or self.client.arrived(etag, whole_etag(digests))

    def _tasks(
        self, one: _Upload, ledger: Ledger, meter: _Meter, found: dict[str, list[str]]
    ) -> list[Callable[[], None]]:
        spans = one.spans
        if len(spans) == 1:

            def whole() -> None:
                digest = self._send(one, 0, spans[0])
                found[one.plan.name] = [digest]
                ledger.finished(one.plan.name, [digest])
                meter.add(one.plan.size_bytes)

            return [whole]
        there = self._continued(one, ledger)

        def part(index: int) -> None:
            first, size = spans[index]
            stat = there.get(index + 1)
            digest = ""
            if stat is not None and stat.size_bytes == size:
                mine = md5(one.plan.read(first, size))
                digest = mine if stat.etag == mine else ""
            digest = digest or self._send(one, index, spans[index])
            meter.add(size)
            with one.lock:
                one.digests[index] = digest
                last = len(one.digests) == len(spans)
            if last:
                digests = [one.digests[number] for number in range(len(spans))]
                self._complete(one, digests)
                found[one.plan.name] = digests
                ledger.finished(one.plan.name, digests)

        return [lambda index=index: part(index) for index in range(len(spans))]  # type: ignore[misc]

    def _continued(self, one: _Upload, ledger: Ledger) -> dict[int, Any]:
        """The parts the server has of this upload, which is begun anew where it knows it no longer."""
        one.upload = ledger.uploads.get(one.plan.name, "")
        if one.upload:
            try:
                return self.client.parts(one.key, one.upload)
            except Absent:
                pass  # the server was restarted, or the upload was cleared away: from the start
        one.upload = self.client.begin_upload(one.key)
        ledger.begun(one.plan.name, one.upload)
        return {}

    def _send(self, one: _Upload, index: int, span: tuple[int, int]) -> str:
        """Send one part, or a whole small object, until the server's ETag says that it arrived; returns its MD5."""
        try:
            data = one.plan.read(*span)
        except (OSError, ValueError) as error:
            raise Failure(Reason.BAD_DATA, f"cannot read: {error}", where=one.plan.name) from None
        digest = md5(data)
        for _ in range(self.limits.wrong_answers):
            self.pace.take(len(data))
            try:
                if one.upload:
                    etag = self.client.put_part(one.key, one.upload, index + 1, data, digest)
                else:
                    etag = self.client.put(one.key, data)
            except Absent:
                raise Failure(
                    Reason.STORE_FAILED,
                    "the server has forgotten the unfinished upload",
                    where=one.key,
                    next_step="launcher retry RUN: it begins this file anew",
                ) from None
            if self.client.arrived(etag, digest):
                return digest
        raise Failure(
            Reason.NETWORK,
            "what was written arrived wrong, time after time",
            where=f"s3://{self.client.address.bucket}/{one.key}",
            next_step="check the network and the server, then launcher retry RUN",
        )

    def _complete(self, one: _Upload, digests: list[str]) -> None:
        try:
            self.client.complete_upload(one.key, one.upload, digests)
        except Absent:
            # Completed already, by a request whose answer was lost? Then the object is there.
            try:
                there = self.client.head(one.key)
            except Absent:
                there = None
            if there is None or there.size_bytes != one.plan.size_bytes or not self.fits(there.etag, digests):
                raise Failure(
                    Reason.STORE_FAILED,
                    "the server has forgotten the unfinished upload",
                    where=one.key,
                    next_step="launcher retry RUN: it begins this file anew",
                ) from None

    # -- down -----------------------------------------------------------------------------
    def download(
        self,
        key: str,
        target: Path,
        size_bytes: int,
        sha256: str,
        *,
        part_bytes: int,
        part_md5: list[str],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Bring an object to `target`, whole and verified; an interrupted download is continued.

        The bytes gather in `<target>.partial` with a ledger beside. Raises Absent, or
        Failure(CORRUPT_ARTIFACT) where they are not those that were written.
        """
        partial = target.with_name(f"{target.name}.partial")
        spans = ranges(size_bytes, part_bytes)
        known = part_md5 if len(part_md5) == len(spans) else []
        with (
            partial.open("r+b" if partial.exists() else "w+b") as stream,
            _Gathering(stream.fileno(), partial) as gathering,
        ):
            stream.truncate(size_bytes)
            handle = stream.fileno()
            done = _continued_parts(partial, handle, spans, known)
            for _ in range(self.limits.wrong_answers):
                found = self._gather(key, gathering, spans, done, progress)
                if found == sha256:
                    os.fchmod(handle, 0o444)
                    os.replace(partial, target)
                    _ledger_of(partial).unlink(missing_ok=True)
                    return
                # Keep the parts that are right, where their digests are known.
                done = {
                    index
                    for index, span in enumerate(spans)
                    if known and md5(os.pread(handle, span[1], span[0])) == known[index]
                }
                if len(done) == len(spans):
                    break  # they are what was written, and what was written is not what the manifest says
        partial.unlink()
        _ledger_of(partial).unlink(missing_ok=True)
        raise Failure(
            Reason.CORRUPT_ARTIFACT,
            "the bytes are not those that were committed",
            where=f"s3://{self.client.address.bucket}/{key}",
        )

    def _gather(
        self,
        key: str,
        gathering: _Gathering,
        spans: list[tuple[int, int]],
        done: set[int],
        progress: Callable[[int], None] | None,
    ) -> str:
        """Fetch the parts that are not done and hash all of them in order meanwhile; returns the sha256."""
        news = threading.Condition()

        def fetch(index: int) -> None:
            first, size = spans[index]
            self.pace.take(size)
            if size:
                self.client.get_into(key, first, size, gathering.write)
            with news:
                done.add(index)
                write_whole(_ledger_of(gathering.path), json.dumps(sorted(done)).encode())
                news.notify_all()
            if progress is not None:
                progress(size)

        missing = [index for index in range(len(spans)) if index not in done]
        crew = Crew([lambda index=index: fetch(index) for index in missing], self.limits.parallel)  # type: ignore[misc]
        sha = hashlib.sha256()
        for index, (first, size) in enumerate(spans):
            with news:
                while index not in done and not crew.failed:
                    news.wait(0.05)
            if crew.failed:
                break
            for piece in gathering.pieces(first, size):
                sha.update(piece)
        crew.join()
        return sha.hexdigest()


def whole_etag(digests: list[str]) -> str:
    """The ETag of an object written in parts with these MD5s (or of one written whole)."""
    if len(digests) == 1:
        return digests[0]
    return f"{md5(b''.join(bytes.fromhex(digest) for digest in digests))}-{len(digests)}"


class _Meter:
    """Counts bytes of many threads and tells a listener."""

    def __init__(self, total: int, listener: Progress | None) -> None:
        self._total, self._listener = total, listener
        self._done = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            if self._listener is not None:
                self._listener(self._done, self._total)


class _Gathering:
    """A file that parts are written into by many threads, and by none once it is closed: not by one
    either that was given up and hears from its server late."""

    def __init__(self, handle: int, path: Path) -> None:
        self.path = path
        self._handle = handle
        self._open = True
        # Also keeps the writers from spinning for the file's own lock.
        self._lock = threading.Lock()

    def __enter__(self) -> _Gathering:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open = False

    def write(self, data: bytes, offset: int) -> None:
        """Raises Failure(DISK_FULL | STORE_FAILED)."""
        view = memoryview(data)
        while view:
            with self._lock:
                if not self._open:
                    raise Failure(
                        Reason.INTERNAL, "bytes came after their file was closed", where=str(self.path)
                    )
                with explained(self.path):
                    written = os.pwrite(self._handle, view, offset)
            view, offset = view[written:], offset + written

    def pieces(self, first: int, size: int) -> Iterator[bytes]:
        """What the file has at `first`, up to `size` bytes, a little at a time."""
        end = first + size
        while first < end and (piece := os.pread(self._handle, min(_MIB, end - first), first)):
            yield piece
            first += len(piece)


def _ledger_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.parts")


def _continued_parts(partial: Path, handle: int, spans: list[tuple[int, int]], known: list[str]) -> set[int]:
    """Parts that an interrupted download has brought and whose digests match."""
    try:
        claimed = json.loads(_ledger_of(partial).read_bytes())
    except (OSError, ValueError):
        return set()
    if not known or not isinstance(claimed, list):
        return set()
    return {
        index
        for index in claimed
        if isinstance(index, int)
        and 0 <= index < len(spans)
        and md5(os.pread(handle, spans[index][1], spans[index][0])) == known[index]
    }
