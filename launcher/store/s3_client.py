"""Objects and multipart uploads of S3-compatible storage, with digests compared.

Uses neither tagging nor ACLs: rclone's server replaces an object's content on those calls.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.store.address import S3Address
from launcher.store.s3_connection import Absent, Connection, Taken

__all__ = ["Absent", "Client", "Got", "Stat", "Taken", "md5"]

_WRITER, _SHA256 = "tuneyard-writer", "tuneyard-sha256"
#: Large answers are read and written in pieces of this size, which stay in the processor's cache.
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Stat:
    """One object in a listing or HEAD answer. `modified_at` is seconds since 1970."""

    key: str
    size_bytes: int
    etag: str
    modified_at: float


@dataclass(frozen=True)
class Got:
    """Bytes of an object, with the metadata to verify them by."""

    data: bytes
    etag: str
    writer: str
    sha256: str


def md5(data: bytes) -> str:
    """The MD5 digest as S3 compares it with an ETag; no protection against anybody."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Client(Connection):
    """Objects of one bucket. Safe to use from many threads."""

    def __init__(self, address: S3Address, *, patient: bool = False) -> None:
        super().__init__(address, patient=patient)
        #: Whether ETags of single writes are the MD5 of their bytes; None until it was tried.
        self.etag_is_md5: bool | None = None

    # -- objects --------------------------------------------------------------------------
    def head(self, key: str) -> Stat:
        answer = self.call("head_object", Bucket=self.address.bucket, Key=key)
        modified = answer.get("LastModified")
        return Stat(
            key,
            int(answer.get("ContentLength", -1)),
            _etag(answer),
            modified.timestamp() if modified else 0.0,
        )

    def age_s(self, key: str) -> float:
        """Seconds since the object was written, by the server's clock, which counts whole seconds. Raises Absent."""
        answer = self.call("head_object", Bucket=self.address.bucket, Key=key)
        sent = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if not sent or "LastModified" not in answer:
            raise Failure(
                Reason.UNSUPPORTED,
                "the server does not say when an object was written",
                where=self._where({"Key": key}),
            )
        now = email.utils.parsedate_to_datetime(sent)
        age_s: float = (now - answer["LastModified"]).total_seconds()
        return max(0.0, age_s)

    def get(self, key: str, first: int | None = None, size: int | None = None) -> Got:
        """A whole object, or `size` bytes from `first`; not verified."""
        extra: dict[str, Any] = {}
        if first is not None and size is not None:
            extra["Range"] = f"bytes={first}-{first + size - 1}"
        for _ in range(self.limits.wrong_answers):
            answer = self.call("get_object", read=_read_all, Bucket=self.address.bucket, Key=key, **extra)
            if size is None or len(answer["Bytes"]) == size:
                break
        else:
            raise self._other_length(key, size)
        metadata = answer.get("Metadata", {})
        return Got(answer["Bytes"], _etag(answer), metadata.get(_WRITER, ""), metadata.get(_SHA256, ""))

    def get_into(self, key: str, first: int, size: int, write: Callable[[bytes, int], None]) -> None:
        """`size` bytes from `first`, passed to `write` as they arrive, each piece with its offset in the object.

        They are not verified. After an error they are sent again from the first. An abandoned thread (see
        `s3_connection.within`) may still call `write` after this has raised Failure.
        """
        came = 0

        def pass_on(stream: Any) -> bytes:
            nonlocal came
            came = 0
            # Asks for one byte more than expected, to notice an answer that is too long.
            while piece := stream.read(min(_PIECE_BYTES, max(size - came, 1))):
                if came < size:
                    write(piece, first + came)
                came += len(piece)
                if came > size:
                    break
            return b""

        span = f"bytes={first}-{first + size - 1}"
        for _ in range(self.limits.wrong_answers):
            self.call("get_object", read=pass_on, Bucket=self.address.bucket, Key=key, Range=span)
            if came == size:
                return
        raise self._other_length(key, size)

    def _other_length(self, key: str, size: int | None) -> Failure:
        return Failure(
            Reason.CORRUPT_ARTIFACT,
            f"the server sent more or fewer than the {size} bytes asked for, {self.limits.wrong_answers} times",
            where=self._where({"Key": key}),
        )

    def get_checked(self, key: str) -> Got:
        """A small whole object, verified.

        By the digest in its metadata if it has one, else by the ETag if that is an MD5, else by reading it twice.
        Raises Failure(CORRUPT_ARTIFACT) if no reading can be verified.
        """
        seen: set[bytes] = set()
        for _ in range(self.limits.wrong_answers):
            got = self.get(key)
            if got.sha256:
                if hashlib.sha256(got.data).hexdigest() == got.sha256:
                    return got
            elif got.etag == md5(got.data) or (self.etag_is_md5 is not True and got.data in seen):
                return got
            seen.add(got.data)
        raise Failure(
            Reason.CORRUPT_ARTIFACT,
            "the bytes are not those that were written",
            where=self._where({"Key": key}),
        )

    def put(
        self, key: str, data: bytes, *, writer: str = "", create: bool = False, hasty: bool = False
    ) -> str:
        """Write an object whole; returns its ETag. With `create` raises Taken if there is one.

        With `hasty` the write happens within half of `settle_s` or, as far as a client can ensure it, never.
        """
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if create else {}
        metadata = {_SHA256: hashlib.sha256(data).hexdigest(), **({_WRITER: writer} if writer else {})}
        answer = self.call(
            "put_object",
            hasty=hasty,
            Bucket=self.address.bucket,
            Key=key,
            Body=data,
            ContentMD5=base64.b64encode(bytes.fromhex(md5(data))).decode(),
            Metadata=metadata,
            **condition,
        )
        return _etag(answer)

    def etag_matches(self, etag: str, digest: str) -> bool:
        """Whether the server's ETag is compatible with the MD5 of what was sent; always, unless ETags are MD5s."""
        return self.etag_is_md5 is not True or etag == digest

    def delete(self, keys: list[str]) -> None:
        """Delete objects; absent ones count as deleted."""
        for key in keys:
            for attempt in range(1, self.limits.wrong_answers + 1):
                try:
                    self.call("delete_object", Bucket=self.address.bucket, Key=key)
                    break
                except Absent:
                    break
                except Failure as failure:
                    # rclone's server fails if neighbours are deleted at the same time.
                    if failure.reason is not Reason.NETWORK or attempt == self.limits.wrong_answers:
                        raise

    def objects(self, prefix: str) -> Iterator[Stat]:
        """Every object whose key starts with `prefix`, in the order of keys."""
        for page in self._pages(prefix, ""):
            for item in page.get("Contents", []):
                if not item["Key"].startswith(prefix):
                    raise Failure(
                        Reason.NETWORK,
                        "the server listed an object that was not asked for",
                        where=self._where({"Prefix": prefix}),
                        next_step="check the network and the server, then launcher retry RUN",
                    )
                yield Stat(
                    item["Key"],
                    item["Size"],
                    item.get("ETag", "").strip('"'),
                    item["LastModified"].timestamp(),
                )

    def children(self, prefix: str) -> tuple[set[str], set[str]]:
        """Names of objects and of folders directly under `prefix` (which ends with a slash)."""
        names: set[str] = set()
        folders: set[str] = set()
        for page in self._pages(prefix, "/"):
            names |= {item["Key"].removeprefix(prefix) for item in page.get("Contents", [])}
            folders |= {
                item["Prefix"].removeprefix(prefix).rstrip("/") for item in page.get("CommonPrefixes", [])
            }
        return names - {""}, folders

    def _pages(self, prefix: str, delimiter: str) -> Iterator[Any]:
        token: dict[str, Any] = {"Delimiter": delimiter} if delimiter else {}
        while True:
            page = self.call(
                "list_objects_v2",
                Bucket=self.address.bucket,
                Prefix=prefix,
                **token,
            )
            yield page
            if not page.get("IsTruncated") or not page.get("NextContinuationToken"):
                return
            token["ContinuationToken"] = page["NextContinuationToken"]

    # -- uploads in parts -----------------------------------------------------------------
    def begin_upload(self, key: str) -> str:
        answer = self.call("create_multipart_upload", Bucket=self.address.bucket, Key=key)
        return str(answer["UploadId"])

    def put_part(self, key: str, upload: str, number: int, data: bytes, digest: str) -> str:
        """Send part `number` (from 1); returns its ETag."""
        answer = self.call(
            "upload_part",
            Bucket=self.address.bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=data,
            ContentMD5=base64.b64encode(bytes.fromhex(digest)).decode(),
        )
        return _etag(answer)

    def parts(self, key: str, upload: str) -> dict[int, Stat]:
        """The parts that the server has of an unfinished upload. Raises Absent if it knows no such upload."""
        found: dict[int, Stat] = {}
        marker: dict[str, Any] = {}
        while True:
            page = self.call("list_parts", Bucket=self.address.bucket, Key=key, UploadId=upload, **marker)
            for part in page.get("Parts", []):
                etag = str(part["ETag"]).strip('"')
                found[part["PartNumber"]] = Stat(key, part["Size"], etag, part["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return found
            marker = {"PartNumberMarker": int(page["NextPartNumberMarker"])}

    def complete_upload(self, key: str, upload: str, etags: list[str]) -> None:
        """Make the parts one object. Raises Absent if the upload is unknown, or completed already."""
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, 1)]
        self.call(
            "complete_multipart_upload",
            Bucket=self.address.bucket,
            Key=key,
            UploadId=upload,
            MultipartUpload={"Parts": parts},
        )

    def unfinished(self, prefix: str) -> list[tuple[str, str, float]]:
        """Unfinished multipart uploads below `prefix`: (key, upload, begun at)."""
        try:
            answer = self.call("list_multipart_uploads", Bucket=self.address.bucket, Prefix=prefix)
        except (Failure, Absent):
            return []  # not every server lists them
        return [
            (item["Key"], item["UploadId"], item["Initiated"].timestamp())
            for item in answer.get("Uploads", [])
        ]

    def abort_upload(self, key: str, upload: str) -> None:
        try:
            self.call("abort_multipart_upload", Bucket=self.address.bucket, Key=key, UploadId=upload)
        except Absent:
            return


def _read_all(stream: Any) -> bytes:
    data: bytes = stream.read()
    return data


def _etag(answer: Any) -> str:
    return str(answer.get("ETag", "")).strip('"')
