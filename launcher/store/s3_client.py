"""Requests to S3-compatible storage: the only module that imports boto3; `answers` says what errors mean.

Every call ends within `limits.call_timeout_s`: retried by botocore where it may help, with its
answer's digest compared, and with a Failure that says what, where and what next. No call of this
module uses tagging or ACLs (rclone's server replaces the object's content on those).
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import botocore.loaders
import botocore.session
from botocore.config import Config

from launcher.outcome import Failure, Reason
from launcher.store import mounted_credentials
from launcher.store.address import S3Address, check_endpoint
from launcher.store.s3_errors import BROKEN, EXPIRED, REPLACED, SPOILT, explain, may_pass

T = TypeVar("T")
_WRITER, _SHA256 = "tuneyard-writer", "tuneyard-sha256"

_AWAY_PAUSE_S = 1.0
#: Of a large answer so much is read and written at once: it stays in the processor's cache meanwhile.
_PIECE_BYTES = 1 << 20


class Absent(Exception):
    """There is no such object (or upload)."""


class Taken(Exception):
    """A conditional write found an object there already."""


@dataclass(frozen=True)
class Stat:
    """What HEAD or a listing says of an object. `modified_at` is seconds since 1970."""

    key: str
    size_bytes: int
    etag: str
    modified_at: float


@dataclass(frozen=True)
class Got:
    """Bytes that were read, with what tells whether they are right."""

    data: bytes
    etag: str
    writer: str
    sha256: str


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Client:
    """One bucket of one server. Safe to use from many threads."""

    def __init__(self, address: S3Address) -> None:
        self.address = address
        self.limits = address.limits
        #: Whether ETags of single writes are the MD5 of their bytes; None until it was tried.
        self.etag_is_md5: bool | None = None
        self._renewal = threading.Lock()
        self._mounted = mounted_credentials.directory()
        self._keys: mounted_credentials.Keys | None = None
        self._has_answered = False
        self._client = self._connect(hasty=False)

    @cached_property
    def _hasty_client(self) -> Any:
        return self._connect(hasty=True)

    def _connect(self, *, hasty: bool) -> Any:
        address = self.address
        try:
            core = botocore.session.Session(profile=address.profile)
            core.register_component("data_loader", _service_models())
            if self._mounted:
                chain = core.get_component("credential_provider")
                chain.providers.insert(0, mounted_credentials.Provider(self._read_mounted))
            session = boto3.session.Session(botocore_session=core, region_name=address.region)
            style = address.addressing
            if style != "auto":
                client = self._make(session, style, hasty)
            else:
                client = self._make(session, "path" if address.endpoint_url else "virtual", hasty)
                host = urlsplit(client.meta.endpoint_url).hostname or ""
                if not address.endpoint_url and not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
                    # An endpoint that the environment or the profile names.
                    client = self._make(session, "path", hasty)
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise explain(error, "connect", str(address), address) from None
        problems = check_endpoint(client.meta.endpoint_url, address.allow_http)
        if problems:
            raise Failure(
                Reason.USAGE,
                "the store's endpoint cannot be used",
                where="endpoint_url",
                problems=tuple(problems),
            )
        return client

    def _make(self, session: Any, style: str, hasty: bool) -> Any:
        limits = self.limits
        return session.client(
            "s3",
            endpoint_url=self.address.endpoint_url,
            # Signing needs some region; other servers than AWS take any.
            region_name=session.region_name or "us-east-1",
            verify=self.address.ca_bundle,
            config=Config(
                signature_version="s3v4",
                connect_timeout=limits.connect_timeout_s,
                read_timeout=min(limits.read_timeout_s, limits.settle_s / 2)
                if hasty
                else limits.read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": 1 if hasty else limits.attempts},
                max_pool_connections=limits.parallel + 4,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # Content-MD5 is sent and signed with all bytes, so they are not hashed twice.
                s3={"addressing_style": style, "payload_signing_enabled": False},
            ),
        )

    # -- one call -------------------------------------------------------------------------
    def call(
        self,
        operation: str,
        *,
        read: Callable[[Any], bytes] | None = None,
        hasty: bool = False,
        **parameters: Any,
    ) -> Any:
        """One request with its retries. `read` takes the answer's bytes from their stream, at each try
        from the first; what it returns becomes the answer's `Bytes`, what it raises as Failure ends the call.

        With `hasty` it is sent again only where the server has refused it. Raises Absent, Taken or
        Failure; returns botocore's answer.
        """
        allowed_s = self.limits.settle_s / 2 if hasty else self.limits.call_timeout_s
        started = time.monotonic()
        deadline = started + allowed_s
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            client = self._hasty_client if hasty else self._client
            try:
                perform = partial(_perform, client, operation, parameters, read)
                answer = within(deadline - time.monotonic(), perform)
                self._has_answered = True
                return answer
            except TimeoutError:
                raise Failure(
                    Reason.NETWORK,
                    f"no whole answer to {operation} within {allowed_s:.0f} s",
                    where=self._where(parameters),
                    next_step="check the network and the server, then launcher retry RUN",
                ) from None
            except botocore.exceptions.ClientError as error:
                code = str(error.response.get("Error", {}).get("Code", ""))
                if not renewed and not hasty and (code in EXPIRED or self._replaced(code)):
                    renewed = True
                    self._renew(client)
                    continue
                again = code in SPOILT or code == "ConditionalRequestConflict"
                if code in ("NoSuchKey", "NoSuchUpload", "404", "NotFound"):
                    raise Absent(parameters.get("Key", "")) from None
                if code in ("PreconditionFailed", "412"):
                    raise Taken(parameters.get("Key", "")) from None
                if not again or attempt == self.limits.wrong_answers:
                    raise explain(error, operation, self._where(parameters), self.address) from None
            except BROKEN as error:
                if not hasty and self._is_away(error, started):
                    attempt -= 1
                    time.sleep(_AWAY_PAUSE_S)
                    continue
                # What broke while it was read, or could not be read at all.
                if hasty or attempt == self.limits.wrong_answers or not may_pass(error):
                    raise explain(error, operation, self._where(parameters), self.address) from None
            pause = min(0.05 * 2**attempt, 2.0, max(0.0, deadline - time.monotonic()))
            time.sleep(pause)

    def _is_away(self, error: Exception, since: float) -> bool:
        """Whether a server that was there is restarting, say, and worth waiting for."""
        patience_s = min(self.limits.patience_s, self.limits.call_timeout_s / 2)
        gone = isinstance(
            error, botocore.exceptions.EndpointConnectionError | botocore.exceptions.ConnectTimeoutError
        )
        return gone and self._has_answered and time.monotonic() - since < patience_s

    def _read_mounted(self) -> mounted_credentials.Keys:
        assert self._mounted is not None
        self._keys = mounted_credentials.read(self._mounted)
        return self._keys

    def _replaced(self, code: str) -> bool:
        """Whether the server refuses a mounted key that is another one by now."""
        if self._mounted is None or code not in REPLACED:
            return False
        return mounted_credentials.read(self._mounted) != self._keys

    def _renew(self, stale: Any) -> None:
        """Read the credentials anew: a profile, a role or a mounted file may have fresh ones by now."""
        with self._renewal:
            if self._client is stale:
                self._client = self._connect(hasty=False)
                self.__dict__.pop("_hasty_client", None)

    def _where(self, parameters: dict[str, Any]) -> str:
        key = parameters.get("Key") or parameters.get("Prefix") or ""
        return f"s3://{self.address.bucket}/{key}"

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

    def get(self, key: str, first: int | None = None, size: int | None = None) -> Got:
        """A whole object, or `size` bytes from `first`. Nothing here says that they are the right ones."""
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
        """`size` bytes from `first`, given to `write` as they come, each piece with its place in the object.

        After an error they come again from the first. Nothing here says that they are the right ones,
        and a thread that was given up may still call `write` when this has raised Failure.
        """
        came = 0

        def pass_on(stream: Any) -> bytes:
            nonlocal came
            came = 0
            # One byte more than there should be tells of an answer that is too long.
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
            f"time after time the server sent more or fewer than the {size} bytes asked for",
            where=self._where({"Key": key}),
        )

    def get_checked(self, key: str) -> Got:
        """A small whole object whose bytes agree with what the server knows of them.

        The digest written beside it decides, else the ETag where that is known to be an MD5, else a
        second reading. Raises Failure(CORRUPT_ARTIFACT) where nothing fits time after time.
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
        """Write an object whole; returns its ETag. With `create` raises Taken where one is there.

        With `hasty` it is written within half of `settle_s` or, as far as the client can help it, never.
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

    def arrived(self, etag: str, digest: str) -> bool:
        """Whether the server's ETag speaks against the MD5 of what was sent."""
        return self.etag_is_md5 is not True or etag == digest

    def delete(self, keys: list[str]) -> None:
        """Remove objects; what is gone already counts as removed."""
        for key in keys:
            for attempt in range(1, self.limits.wrong_answers + 1):
                try:
                    self.call("delete_object", Bucket=self.address.bucket, Key=key)
                    break
                except Absent:
                    break
                except Failure as failure:
                    # rclone's server stumbles over neighbours that are deleted at the same time.
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
        """Parts the server has of an unfinished upload. Raises Absent where it knows no such upload."""
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
        """Make the parts one object. Raises Absent where the upload is unknown, or completed already."""
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, 1)]
        self.call(
            "complete_multipart_upload",
            Bucket=self.address.bucket,
            Key=key,
            UploadId=upload,
            MultipartUpload={"Parts": parts},
        )

    def unfinished(self, prefix: str) -> list[tuple[str, str, float]]:
        """Uploads in parts that were begun below `prefix`: (key, upload, begun at)."""
        try:
            answer = self.call("list_multipart_uploads", Bucket=self.address.bucket, Prefix=prefix)
        except (Failure, Absent):
            return []  # not every server lists them; they cost nothing that a reader could see
        return [
            (item["Key"], item["UploadId"], item["Initiated"].timestamp())
            for item in answer.get("Uploads", [])
        ]

    def abort_upload(self, key: str, upload: str) -> None:
        try:
            self.call("abort_multipart_upload", Bucket=self.address.bucket, Key=key, UploadId=upload)
        except Absent:
            return


@cache
def _service_models() -> botocore.loaders.Loader:
    """Botocore's description of S3, read once for all clients of this process."""
    return botocore.loaders.create_loader()


def within(seconds: float, function: Callable[[], T]) -> T:
    """What `function` returns, or TimeoutError. A thread that does not come back in time is left behind:
    it dies with the process, and what it still reads is read by nobody."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:  # carried to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True, name="tuneyard-s3")
    thread.start()
    thread.join(max(0.0, seconds))
    if failure:
        raise failure[0]
    if not result:
        raise TimeoutError
    return result[0]


def _perform(
    client: Any, operation: str, parameters: dict[str, Any], read: Callable[[Any], bytes] | None
) -> Any:
    answer = getattr(client, operation)(**parameters)
    if read is not None:
        with answer.pop("Body") as stream:
            answer["Bytes"] = read(stream)
    return answer


def _read_all(stream: Any) -> bytes:
    data: bytes = stream.read()
    return data


def _etag(answer: Any) -> str:
    return str(answer.get("ETag", "")).strip('"')
