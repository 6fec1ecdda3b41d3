"""Calls to S3-compatible storage through botocore: credentials, retries and deadlines.

botocore's own retries are off: they share a quota that a short outage exhausts, and begin within 50 ms. A call is
retried here with patience (see `patience`) while the server is away or busy; `s3_errors` turns what remains into a
Failure with the next step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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
from launcher.store.patience import Outage
from launcher.store.s3_errors import (
    BROKEN,
    EXPIRED,
    REPLACED,
    NoWholeAnswer,
    explain,
    is_away,
    is_spoilt,
    name_of,
)

T = TypeVar("T")


class Absent(Exception):
    """There is no such object (or upload)."""


class Taken(Exception):
    """A conditional write found an object there already."""


class Connection:
    """Calls to one bucket of one server. Safe to use from many threads."""

    def __init__(self, address: S3Address, *, patient: bool = False) -> None:
        """With `patient` the first contact is waited for like any other call."""
        self.address = address
        self.limits = address.limits
        self._outage = Outage(address.endpoint_url or f"s3://{address.bucket}")
        self._renewal = threading.Lock()
        self._mounted = mounted_credentials.directory()
        self._keys: mounted_credentials.Keys | None = None
        self._has_answered = patient
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
                    # The environment or the profile names another endpoint.
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
            # Signing needs a region; servers other than AWS accept any.
            region_name=session.region_name or "us-east-1",
            verify=self.address.ca_bundle,
            config=Config(
                signature_version="s3v4",
                connect_timeout=limits.connect_timeout_s,
                read_timeout=min(limits.read_timeout_s, limits.settle_s / 2)
                if hasty
                else limits.read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": 1},
                max_pool_connections=limits.parallel + 4,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # Content-MD5 is sent and signed, so the payload needs no second hash.
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
        """One request with its retries; returns botocore's answer. Raises Absent, Taken or Failure.

        `read` reads the answer's body from its stream, at each try from the start; its return value becomes the
        answer's `Bytes`, and a Failure that it raises ends the call. With `hasty` there is a single try, and it
        is repeated only if the server has refused it.
        """
        allowed_s = self.limits.settle_s / 2 if hasty else self.limits.call_timeout_s
        begun_at = time.monotonic()
        renewed = False
        spoilt = tries = 0
        away_since: float | None = None
        while True:
            client = self._hasty_client if hasty else self._client
            try:
                # All tries of a write in a hurry share its time.
                try_s = allowed_s - (time.monotonic() - begun_at if hasty else 0.0)
                if not self._has_answered:
                    try_s = min(try_s, self.limits.first_contact_s)
                answer = within(try_s, partial(_perform, client, operation, parameters, read))
                self._has_answered = True
                self._outage.is_over()
                return answer
            except botocore.exceptions.ClientError as error:
                code = str(error.response.get("Error", {}).get("Code", ""))
                if not renewed and not hasty and (code in EXPIRED or self._replaced(code)):
                    renewed = True
                    self._renew(client)
                    continue
                if code in ("NoSuchKey", "NoSuchUpload", "404", "NotFound"):
                    raise Absent(parameters.get("Key", "")) from None
                if code in ("PreconditionFailed", "412"):
                    raise Taken(parameters.get("Key", "")) from None
                failed: Exception = error
            except TimeoutError:
                failed = NoWholeAnswer(try_s)
            except BROKEN as error:
                failed = error
            if not hasty and is_away(failed):
                tries += 1
                now = time.monotonic()
                away_since = away_since or (now if self._has_answered else begun_at)
                limit_s = self.limits.patience_s if self._has_answered else self.limits.first_contact_s
                left_s = away_since + limit_s - now
                if left_s > 0:
                    self._outage.wait(tries, f"{name_of(failed)} to {operation}", left_s, limit_s)
                    continue
                raise explain(failed, operation, self._where(parameters), self.address, tries) from None
            spoilt += 1
            # A damaged request or answer: the next one may be whole. A write in a hurry is repeated only if refused.
            again = is_spoilt(failed) and not (hasty and isinstance(failed, BROKEN))
            if not again or spoilt == self.limits.wrong_answers:
                raise explain(failed, operation, self._where(parameters), self.address, spoilt) from None
            time.sleep(min(0.05 * 2**spoilt, 2.0))

    def _read_mounted(self) -> mounted_credentials.Keys:
        assert self._mounted is not None
        self._keys = mounted_credentials.read(self._mounted)
        return self._keys

    def _replaced(self, code: str) -> bool:
        """Whether the server refuses a mounted key that has been replaced since it was read."""
        if self._mounted is None or code not in REPLACED:
            return False
        return mounted_credentials.read(self._mounted) != self._keys

    def _renew(self, stale: Any) -> None:
        """Read the credentials again: a profile, a role or a mounted file may have new ones."""
        with self._renewal:
            if self._client is stale:
                self._client = self._connect(hasty=False)
                self.__dict__.pop("_hasty_client", None)

    def _where(self, parameters: dict[str, Any]) -> str:
        key = parameters.get("Key") or parameters.get("Prefix") or ""
        return f"s3://{self.address.bucket}/{key}"


@cache
def _service_models() -> botocore.loaders.Loader:
    """Botocore's service models, loaded once per process."""
    return botocore.loaders.create_loader()


def within(seconds: float, function: Callable[[], T]) -> T:
    """The result of `function`, or TimeoutError.

    A daemon thread runs it. After a timeout the thread is abandoned: what it still reads is discarded.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:  # raised again in the caller's thread
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
