"""Calls to S3-compatible storage through botocore: credentials, retries and deadlines.

Every call ends within `limits.call_timeout_s`. botocore retries what may help; `s3_errors` turns what remains
into a Failure with the next step.
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
from launcher.store.s3_errors import BROKEN, EXPIRED, REPLACED, SPOILT, explain, may_pass

T = TypeVar("T")
_AWAY_PAUSE_S = 1.0


class Absent(Exception):
    """There is no such object (or upload)."""


class Taken(Exception):
    """A conditional write found an object there already."""


class Connection:
    """Calls to one bucket of one server. Safe to use from many threads."""

    def __init__(self, address: S3Address) -> None:
        self.address = address
        self.limits = address.limits
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
                retries={"mode": "standard", "total_max_attempts": 1 if hasty else limits.attempts},
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
                # The connection broke, or the answer could not be parsed.
                if hasty or attempt == self.limits.wrong_answers or not may_pass(error):
                    raise explain(error, operation, self._where(parameters), self.address) from None
            pause = min(0.05 * 2**attempt, 2.0, max(0.0, deadline - time.monotonic()))
            time.sleep(pause)

    def _is_away(self, error: Exception, since: float) -> bool:
        """Whether a server that has answered before is unreachable, for example while it restarts."""
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
