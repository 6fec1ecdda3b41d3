"""Downloads: in parallel parts, verified while they arrive, resumed by skipping parts that match."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.store.local_state import explained, write_whole
from launcher.store.parallel import started
from launcher.store.parts import ranges
from launcher.store.rate_limiter import RateLimiter
from launcher.store.s3_client import Client, md5
from launcher.system.json_text import parse_json

_PIECE_BYTES = 1 << 20


class Downloader:
    """Downloads through one client."""

    def __init__(self, client: Client, rate_limiter: RateLimiter) -> None:
        self.client = client
        self.rate_limiter = rate_limiter
        self.limits = client.limits

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
        """Download an object to `target`, whole and verified; continues an interrupted download.

        The bytes are collected in `<target>.partial`, with a ledger of parts beside it. Raises Absent, or
        Failure(CORRUPT_ARTIFACT) if they are not those that were written.
        """
        partial_path = target.with_name(f"{target.name}.partial")
        spans = ranges(size_bytes, part_bytes)
        known = part_md5 if len(part_md5) == len(spans) else []
        with (
            partial_path.open("r+b" if partial_path.exists() else "w+b") as stream,
            _PartialFile(stream.fileno(), partial_path) as file,
        ):
            stream.truncate(size_bytes)
            handle = stream.fileno()
            done = _continued_parts(partial_path, handle, spans, known)
            for _ in range(self.limits.wrong_answers):
                found = self._fetch_and_hash(key, file, spans, done, progress)
                if found == sha256:
                    os.fchmod(handle, 0o444)
                    os.replace(partial_path, target)
                    _ledger_of(partial_path).unlink(missing_ok=True)
                    return
                # Keep the parts that match, if their digests are known.
                done = {
                    index
                    for index, span in enumerate(spans)
                    if known and md5(os.pread(handle, span[1], span[0])) == known[index]
                }
                if len(done) == len(spans):
                    break  # the parts are as written, and do not match the manifest
        partial_path.unlink()
        _ledger_of(partial_path).unlink(missing_ok=True)
        raise Failure(
            Reason.CORRUPT_ARTIFACT,
            "the bytes are not those that were committed",
            where=f"s3://{self.client.address.bucket}/{key}",
        )

    def _fetch_and_hash(
        self,
        key: str,
        file: _PartialFile,
        spans: list[tuple[int, int]],
        done: set[int],
        progress: Callable[[int], None] | None,
    ) -> str:
        """Fetch the missing parts and meanwhile hash all parts in order; returns the sha256."""
        lock = threading.Lock()

        def fetch(index: int) -> None:
            first, size = spans[index]
            self.rate_limiter.take(size)
            if size:
                self.client.get_into(key, first, size, file.write)
            with lock:
                done.add(index)
                write_whole(_ledger_of(file.path), json.dumps(sorted(done)).encode())
            if progress is not None:
                progress(size)

        missing = [index for index in range(len(spans)) if index not in done]
        sha = hashlib.sha256()
        with started([partial(fetch, index) for index in missing], self.limits.parallel) as fetches:
            pending = dict(zip(missing, fetches, strict=True))
            for index, (first, size) in enumerate(spans):
                if index in pending:
                    pending[index].result()
                for piece in file.pieces(first, size):
                    sha.update(piece)
        return sha.hexdigest()


class _PartialFile:
    """A file that many threads write parts into, and none after it is closed.

    A request that timed out may still deliver bytes (see `s3_connection.within`); they are refused.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self.path = path
        self._handle = handle
        self._open = True
        # Also avoids contention for the lock of the file itself.
        self._lock = threading.Lock()

    def __enter__(self) -> _PartialFile:
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
                        Reason.INTERNAL, "bytes arrived after their file was closed", where=str(self.path)
                    )
                with explained(self.path):
                    written = os.pwrite(self._handle, view, offset)
            view, offset = view[written:], offset + written

    def pieces(self, first: int, size: int) -> Iterator[bytes]:
        """The file's bytes from `first`, up to `size`, in pieces."""
        end = first + size
        while first < end and (piece := os.pread(self._handle, min(_PIECE_BYTES, end - first), first)):
            yield piece
            first += len(piece)


def _ledger_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.parts")


def _continued_parts(partial: Path, handle: int, spans: list[tuple[int, int]], known: list[str]) -> set[int]:
    """Parts that an interrupted download has stored and whose digests match."""
    try:
        claimed = parse_json(_ledger_of(partial).read_bytes())
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
