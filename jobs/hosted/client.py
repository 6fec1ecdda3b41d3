"""A hosted service as a stage sees it: the client, what its errors mean, and how long they are borne.

The SDK's own retries are off everywhere: it would post a job three times after a timeout. Here a
call that may be repeated is repeated, waits are cut short by SIGTERM, and a key never reaches a
message, whatever a service writes into its errors.
"""

from __future__ import annotations

import email.utils
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import openai

from launcher.outcome import Failure, Reason
from launcher.system.text import printable

Result = TypeVar("Result")
OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
#: A file with the key, as a mounted Secret is.
KEY_FILE_VARIABLE = "OPENAI_API_KEY_FILE"
_SHOWN_CHARACTERS = 300
_TICK_S = 0.1


@dataclass(frozen=True)
class Patience:
    """How much is borne before a call is given up."""

    tries: int = 8
    first_wait_s: float = 0.5
    longest_wait_s: float = 120.0
    timeout_s: float = 60.0
    #: After a request whose answer was lost, how long until the service will have carried it out, if it does.
    settle_s: float = 2.0
    poll_s: float = 2.0


#: A server in the same stage answers at once.
LOCAL = Patience(tries=6, first_wait_s=0.1, longest_wait_s=5.0, timeout_s=600.0, settle_s=0.2, poll_s=0.3)


@dataclass(frozen=True)
class Connection:
    """Where a service is asked, and with which key."""

    base_url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Connection({self.base_url!r})"


def outside(base_url: str | None) -> Connection:
    """A service outside; the key is in the environment, or in a file it names.

    Raises Failure(UNAUTHORIZED) where there is none.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip() or _key_in_file()
    if not key:
        raise Failure(
            Reason.UNAUTHORIZED,
            f"no API key: {KEY_VARIABLE} is not set",
            next_step=f"export {KEY_VARIABLE}=… and submit again",
        )
    return Connection(base_url or OPENAI_URL, key)


def patience_of(base_url: str | None) -> Patience:
    """A server on this machine is looked at more often than one that counts requests."""
    host = (base_url or "").partition("://")[2]
    near = host.startswith(("127.", "localhost", "[::1]"))
    return Patience(poll_s=0.3, settle_s=0.5) if near else Patience()


def _key_in_file() -> str:
    path = os.environ.get(KEY_FILE_VARIABLE)
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Failure(
            Reason.UNAUTHORIZED,
            f"the file that {KEY_FILE_VARIABLE} names cannot be read",
            where=path,
            next_step="give the Secret that the site's configuration names the key api_key",
        ) from None


class Service:
    """One service, asked patiently. `check_stop` raises where the stage is to end."""

    def __init__(
        self, connection: Connection, check_stop: Callable[[], None], patience: Patience | None = None
    ) -> None:
        self._key = connection.api_key
        self._check_stop = check_stop
        self.patience = patience or Patience()
        # At its debug level the SDK's log holds whole requests.
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.client = openai.OpenAI(
            base_url=connection.base_url,
            api_key=connection.api_key,
            max_retries=0,
            timeout=self.patience.timeout_s,
        )

    def ask(self, what: str, call: Callable[[], Result]) -> Result:
        """`call`, repeated while that may help: only for what can be asked twice. Raises Failure or Stopped."""
        for number in range(1, self.patience.tries + 1):
            self._check_stop()
            try:
                return call()
            except openai.APIError as error:
                self.bear(what, error, number)
        raise AssertionError("bear raises after the last try")

    def bear(self, what: str, error: openai.APIError, number: int) -> None:
        """Wait as long as the error asks for after try `number`; raises Failure where waiting does not help."""
        if not may_pass(error) or number >= self.patience.tries:
            raise self.failure(what, error) from None
        asked_s = retry_after_s(error)
        if asked_s is not None and asked_s > self.patience.longest_wait_s:
            raise Failure(
                Reason.NETWORK,
                f"{what}: the service asks to wait {asked_s:.0f} s, more than the "
                f"{self.patience.longest_wait_s:.0f} s a stage waits",
                next_step="launcher retry RUN once the limit has passed",
            ) from None
        backoff_s = self.patience.first_wait_s * 2 ** (number - 1)
        wait_s = min(self.patience.longest_wait_s, backoff_s) if asked_s is None else asked_s
        print(f"{what}: {_kind(error)}, try {number}, again in {wait_s:.1f} s", flush=True)
        self.wait(wait_s)

    def wait(self, seconds: float) -> None:
        """Sleep, but end at once where the stage is to end."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(_TICK_S, left_s))
        self._check_stop()

    def read_file(self, what: str, file_id: str, limit_bytes: int) -> bytes:
        """The bytes of a file at the service. Raises Failure(NETWORK) where they are more than `limit_bytes`."""

        def fetch() -> bytes:
            data = bytearray()
            with self.client.files.with_streaming_response.content(file_id) as response:
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > limit_bytes:
                        raise Failure(Reason.NETWORK, f"{what}: more than {limit_bytes} bytes")
            return bytes(data)

        return self.ask(what, fetch)

    def clean(self, text: str) -> str:
        """Text of the service, printable, short and without the key."""
        shown = text.replace(self._key, "[the key]")
        return printable(shown)[:_SHOWN_CHARACTERS]

    def failure(self, what: str, error: openai.APIError) -> Failure:
        """The one reason that `error` is."""
        if isinstance(error, openai.APIStatusError):
            reason, next_step = _meaning(error)
            message = f"{what}: HTTP {error.status_code}: {self.clean(_message(error))}"
            return Failure(reason, message, next_step=next_step)
        kind = "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
        return Failure(Reason.NETWORK, f"{what}: {kind}", next_step="check base_url and the network")


def may_pass(error: openai.APIError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, openai.APIStatusError):
        if _code(error) in ("insufficient_quota", "billing_hard_limit_reached"):
            return False
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def is_doubtful(error: openai.APIError) -> bool:
    """Whether the service may have carried out what it was asked although it did not say so."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409) or error.status_code >= 500
    return True


def retry_after_s(error: openai.APIError) -> float | None:
    """What the service asks for, in seconds."""
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


def _meaning(error: openai.APIStatusError) -> tuple[Reason, str]:
    code = _code(error)
    if code in ("insufficient_quota", "billing_hard_limit_reached"):
        return Reason.OVER_BUDGET, "add credit at the service, then launcher retry RUN"
    if error.status_code in (401, 403):
        return Reason.UNAUTHORIZED, f"check {KEY_VARIABLE} and what it may do"
    if error.status_code == 404 or code in ("model_not_found", "model_not_available"):
        return Reason.NO_SUCH_MODEL, "check the contender's model and base_url"
    if error.status_code == 429 or error.status_code >= 500:
        return Reason.NETWORK, "launcher retry RUN"
    return Reason.BAD_DATA, "correct what the service says"


def _code(error: openai.APIStatusError) -> str:
    return str(error.code or "")


def _message(error: openai.APIStatusError) -> str:
    body: Any = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return "no message"


def _kind(error: openai.APIError) -> str:
    return f"HTTP {error.status_code}" if isinstance(error, openai.APIStatusError) else type(error).__name__
