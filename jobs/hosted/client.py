"""Client of a hosted service: connection, retries, and the failure reason of each of its errors.

The SDK's own retries are off: they would post a job three times after a timeout. Calls that are safe to
repeat are retried here, SIGTERM interrupts every wait, and the API key is removed from the service's texts.
"""

from __future__ import annotations

import email.utils
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import openai

from launcher.outcome import Failure, Reason
from launcher.spec.providers import Provider
from launcher.system.text import header_secret, printable

Result = TypeVar("Result")
_MESSAGE_LIMIT_CHARACTERS = 300
_TICK_S = 0.1


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a call is retried before it fails."""

    tries: int = 8
    first_wait_s: float = 0.5
    longest_wait_s: float = 120.0
    timeout_s: float = 60.0
    #: After a lost response: seconds until the service has carried out the request, if it does.
    settle_s: float = 2.0
    poll_s: float = 2.0


#: For the rehearsal server of the same stage.
EMBEDDED_RETRY_POLICY = RetryPolicy(
    tries=6, first_wait_s=0.1, longest_wait_s=5.0, timeout_s=600.0, settle_s=0.2, poll_s=0.3
)


@dataclass(frozen=True)
class Connection:
    """Base URL and API key of one service of `provider`."""

    provider: Provider
    base_url: str
    api_key: str = field(repr=False)


def provider_connection(provider: Provider, base_url: str | None = None) -> Connection:
    """Connection to `provider`, or to `base_url` with its key.

    The key comes from the provider's key variable or key file. Raises Failure(UNAUTHORIZED) without a key.
    """
    assert provider.key_variable is not None
    assert provider.base_url is not None
    key = os.environ.get(provider.key_variable, "").strip() or _key_in_file(provider)
    if not key:
        raise Failure(
            Reason.UNAUTHORIZED,
            f"no API key: {provider.key_variable} is not set",
            next_step=f"export {provider.key_variable}=… and submit again",
        )
    try:
        key = header_secret(key)
    except ValueError as error:
        raise Failure(
            Reason.UNAUTHORIZED, f"the API key {error}", next_step=f"correct {provider.key_variable}"
        ) from None
    return Connection(provider, base_url or provider.base_url, key)


def retry_policy(base_url: str | None) -> RetryPolicy:
    """The policy for a service; a server on this machine is polled more often."""
    host = (base_url or "").partition("://")[2]
    is_local = host.startswith(("127.", "localhost", "[::1]"))
    return RetryPolicy(poll_s=0.3, settle_s=0.5) if is_local else RetryPolicy()


def _key_in_file(provider: Provider) -> str:
    path = os.environ.get(provider.key_file_variable or "")
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Failure(
            Reason.UNAUTHORIZED,
            f"cannot read the file named by {provider.key_file_variable}",
            where=path,
            next_step="give the Secret that the site's configuration names the key api_key",
        ) from None


class Service:
    """One service, called with retries. `check_stop` raises Stopped when the stage must end.

    `check_lease` is called before each request that costs money, and raises LeaseLost if another process is at it.
    """

    def __init__(
        self,
        connection: Connection,
        check_stop: Callable[[], None],
        retry_policy: RetryPolicy | None = None,
        check_lease: Callable[[], None] = lambda: None,
    ) -> None:
        self.provider = connection.provider
        self._key = connection.api_key
        self._check_stop = check_stop
        self.check_lease = check_lease
        self.retry_policy = retry_policy or RetryPolicy()
        # At debug level the SDK logs whole requests.
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.client = openai.OpenAI(
            base_url=connection.base_url,
            api_key=connection.api_key,
            max_retries=0,
            timeout=self.retry_policy.timeout_s,
        )

    def call(self, what: str, request: Callable[[], Result]) -> Result:
        """Result of `request`, which must be safe to repeat. Raises Failure or Stopped."""
        for number in range(1, self.retry_policy.tries + 1):
            self._check_stop()
            try:
                return request()
            except openai.APIError as error:
                self.retry_or_raise(what, error, number)
        raise AssertionError("retry_or_raise raises after the last try")

    def retry_or_raise(self, what: str, error: openai.APIError, number: int) -> None:
        """Wait before the next try after try `number` failed; raises Failure if another try cannot help."""
        if not is_transient(error) or number >= self.retry_policy.tries:
            raise self.failure(what, error) from None
        asked_s = retry_after_s(error)
        if asked_s is not None and asked_s > self.retry_policy.longest_wait_s:
            raise Failure(
                Reason.NETWORK,
                f"{what}: the service asks to wait {asked_s:.0f} s, more than the "
                f"{self.retry_policy.longest_wait_s:.0f} s a stage waits",
                next_step="launcher retry RUN once the limit has passed",
            ) from None
        backoff_s = self.retry_policy.first_wait_s * 2 ** (number - 1)
        wait_s = min(self.retry_policy.longest_wait_s, backoff_s) if asked_s is None else asked_s
        print(f"{what}: {_kind(error)}, try {number}, again in {wait_s:.1f} s", flush=True)
        self.wait(wait_s)

    def wait(self, seconds: float) -> None:
        """Sleep; raises Stopped at once when the stage must end."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(_TICK_S, left_s))
        self._check_stop()

    def read_file(self, what: str, file_id: str, limit_bytes: int) -> bytes:
        """Content of a file at the service. Raises Failure(NETWORK) if it exceeds `limit_bytes`."""

        def fetch() -> bytes:
            data = bytearray()
            with self.client.files.with_streaming_response.content(file_id) as response:
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > limit_bytes:
                        raise Failure(Reason.NETWORK, f"{what}: more than {limit_bytes} bytes")
            return bytes(data)

        return self.call(what, fetch)

    def clean(self, text: str) -> str:
        """Text from the service: printable, shortened, without the API key."""
        shown = text.replace(self._key, "[the key]")
        return printable(shown)[:_MESSAGE_LIMIT_CHARACTERS]

    def failure(self, what: str, error: openai.APIError) -> Failure:
        """The Failure that `error` means."""
        if isinstance(error, openai.APIStatusError):
            reason, next_step = self._reason(error)
            message = f"{what}: HTTP {error.status_code}: {self.clean(_message(error))}"
            return Failure(reason, message, next_step=next_step)
        kind = "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
        return Failure(Reason.NETWORK, f"{what}: {kind}", next_step="check base_url and the network")

    def _reason(self, error: openai.APIStatusError) -> tuple[Reason, str]:
        """Reason and next step of an HTTP error."""
        code = _code(error)
        if code in _NO_CREDIT:
            return Reason.OVER_BUDGET, "add credit at the service, then launcher retry RUN"
        if error.status_code in (401, 403):
            return Reason.UNAUTHORIZED, f"check {self.provider.key_variable or 'the key'} and its permissions"
        if error.status_code == 404 or code in ("model_not_found", "model_not_available"):
            return Reason.NO_SUCH_MODEL, "check the contender's model and base_url"
        if error.status_code == 429 or error.status_code >= 500:
            return Reason.NETWORK, "launcher retry RUN"
        return Reason.BAD_DATA, "correct what the service says"


_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")


def is_transient(error: openai.APIError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, openai.APIStatusError):
        if _code(error) in _NO_CREDIT:
            return False
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def is_ambiguous(error: openai.APIError) -> bool:
    """Whether the service may have carried out the request in spite of the error."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409) or error.status_code >= 500
    return True


def retry_after_s(error: openai.APIError) -> float | None:
    """Seconds that the service asks to wait, by its `Retry-After` headers."""
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if "retry-after" in headers:
            return max(0.0, float(headers["retry-after"]))
    except ValueError:
        try:
            until = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp()
        except (KeyError, ValueError):
            return None
        return max(0.0, until - time.time())
    return None


def _code(error: openai.APIStatusError) -> str:
    return str(error.code or "")


def _message(error: openai.APIStatusError) -> str:
    body: Any = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return "no message"


def _kind(error: openai.APIError) -> str:
    return f"HTTP {error.status_code}" if isinstance(error, openai.APIStatusError) else type(error).__name__
