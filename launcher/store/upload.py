"""Uploads: in parallel parts, resumed by skipping parts that match."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.store.artifact import Progress
from launcher.store.object_layout import ObjectPlan
from launcher.store.parallel import run_all
from launcher.store.part_ledger import PartLedger, SentPart
from launcher.store.parts import etag_matches, part_size, ranges
from launcher.store.rate_limiter import RateLimiter
from launcher.store.s3_client import Absent, Client, md5


@dataclass
class _Upload:
    """One object that is being uploaded."""

    plan: ObjectPlan
    key: str
    part_bytes: int
    upload: str = ""
    #: Part index -> what was sent.
    parts: dict[int, SentPart] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spans(self) -> list[tuple[int, int]]:
        return ranges(self.plan.size_bytes, self.part_bytes)


class Uploader:
    """Uploads through one client."""

    def __init__(self, client: Client, rate_limiter: RateLimiter) -> None:
        self.client = client
        self.rate_limiter = rate_limiter
        self.limits = client.limits

    def upload(
        self, objects: list[ObjectPlan], base: str, ledger: PartLedger, progress: Progress | None = None
    ) -> dict[str, list[str]]:
        """Write every object below the key `base`; returns each one's part digests (MD5).

        Parts that an earlier try has sent and that still match are not sent again. Raises Failure.
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
        run_all(tasks, self.limits.parallel)
        if self.client.etag_is_md5 is False:
            # The server's ETags are no MD5s: verify by reading back.
            checks = [partial(self._read_back, one, base, found[one.name]) for one in objects]
            run_all(checks, self.limits.parallel)
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
                    "the server returns other bytes than were written",
                    where=f"s3://{self.client.address.bucket}/{key}",
                    next_step="check the network and the server, then launcher retry RUN",
                )

    def _is_done(self, planned: ObjectPlan, base: str, ledger: PartLedger) -> bool:
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
            and etag_matches(self.client, there.etag, claimed)
            and [md5(planned.read(*span)) for span in spans] == claimed
        )

    def _tasks(
        self, one: _Upload, ledger: PartLedger, meter: _Meter, found: dict[str, list[str]]
    ) -> list[Callable[[], None]]:
        spans = one.spans
        if len(spans) == 1:

            def whole() -> None:
                digest = self._send(one, 0, spans[0]).md5
                found[one.plan.name] = [digest]
                ledger.finished(one.plan.name, [digest])
                meter.add(one.plan.size_bytes)

            return [whole]
        there = self._continued(one, ledger)

        def part(index: int) -> None:
            first, size = spans[index]
            stat = there.get(index + 1)
            sent = None
            if stat is not None and stat.size_bytes == size:
                mine = md5(one.plan.read(first, size))
                # The ledger knows the digest behind an ETag that is no MD5.
                known = ledger.part(one.plan.name, index)
                if stat.etag == mine or known == SentPart(stat.etag, mine):
                    sent = SentPart(stat.etag, mine)
            if sent is None:
                sent = self._send(one, index, spans[index])
                ledger.sent(one.plan.name, index, sent)
            meter.add(size)
            with one.lock:
                one.parts[index] = sent
                last = len(one.parts) == len(spans)
            if last:
                parts = [one.parts[number] for number in range(len(spans))]
                digests = [part.md5 for part in parts]
                self._complete(one, digests, [part.etag for part in parts])
                found[one.plan.name] = digests
                ledger.finished(one.plan.name, digests)

        return [partial(part, index) for index in range(len(spans))]

    def _continued(self, one: _Upload, ledger: PartLedger) -> dict[int, Any]:
        """The parts that the server has of this upload; a new upload is begun if it no longer knows it."""
        one.upload = ledger.uploads.get(one.plan.name, "")
        if one.upload:
            try:
                return self.client.parts(one.key, one.upload)
            except Absent:
                pass  # the server was restarted, or the upload was deleted: begin again
        one.upload = self.client.begin_upload(one.key)
        ledger.begun(one.plan.name, one.upload)
        return {}

    def _send(self, one: _Upload, index: int, span: tuple[int, int]) -> SentPart:
        """Send one part, or a whole small object, until the server's ETag matches."""
        try:
            data = one.plan.read(*span)
        except (OSError, ValueError) as error:
            raise Failure(Reason.BAD_DATA, f"cannot read: {error}", where=one.plan.name) from None
        digest = md5(data)
        for _ in range(self.limits.wrong_answers):
            self.rate_limiter.take(len(data))
            try:
                if one.upload:
                    etag = self.client.put_part(one.key, one.upload, index + 1, data, digest)
                else:
                    etag = self.client.put(one.key, data)
            except Absent:
                raise Failure(
                    Reason.STORE_FAILED,
                    "the server no longer has the unfinished upload",
                    where=one.key,
                    next_step="launcher retry RUN: it uploads this file again",
                ) from None
            if self.client.etag_matches(etag, digest):
                # Without an ETag in the answer, S3's rule for unencrypted parts is assumed.
                return SentPart(etag or digest, digest)
        raise Failure(
            Reason.NETWORK,
            f"the server confirms other bytes than were written, {self.limits.wrong_answers} times",
            where=f"s3://{self.client.address.bucket}/{one.key}",
            next_step="check the network and the server, then launcher retry RUN",
        )

    def _complete(self, one: _Upload, digests: list[str], etags: list[str]) -> None:
        try:
            self.client.complete_upload(one.key, one.upload, etags)
        except Absent:
            # A request whose answer was lost may have completed it: then the object exists.
            try:
                there = self.client.head(one.key)
            except Absent:
                there = None
            if (
                there is None
                or there.size_bytes != one.plan.size_bytes
                or not etag_matches(self.client, there.etag, digests)
            ):
                raise Failure(
                    Reason.STORE_FAILED,
                    "the server no longer has the unfinished upload",
                    where=one.key,
                    next_step="launcher retry RUN: it uploads this file again",
                ) from None


class _Meter:
    """Counts the bytes of all threads for a progress listener."""

    def __init__(self, total: int, listener: Progress | None) -> None:
        self._total, self._listener = total, listener
        self._done = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            if self._listener is not None:
                self._listener(self._done, self._total)
