"""HTTP requests to the API server: credentials are refreshed, lost connections and busy servers retried.

Only the official client's configuration and REST layer are used: its model classes would double the
conductor's memory, and manifests are rendered as plain dicts anyway.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3.exceptions
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject

from launcher.outcome import Failure, Reason
from launcher.system.text import header_secret
from launcher.targets.cluster import kubeconfig
from launcher.targets.cluster.api_errors import KubernetesApiError, answer_of, api_error, is_final
from launcher.targets.cluster.stream import Stream

#: How long a request is retried.
RETRY_TIMEOUT_S = 60.0
#: How long the first request is retried: a wrong address is likelier than a server that is starting.
CONTACT_TIMEOUT_S = 8.0
#: After this long without an answer the wait is reported.
REPORT_AFTER_S = 3.0
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 40.0  # an admission webhook alone may take 30
LONGEST_WAIT_S = 8.0
RENEWAL_INTERVAL_S = 5.0
#: A restarted API server answers before it has loaded roles and service accounts, and then rejects valid requests
#: (seen for about a second with 1.34).
SETTLING_S = 30.0
#: Statuses after which the request may have taken effect.
_AMBIGUOUS = (500, 502, 503, 504)


@dataclass(frozen=True)
class Request:
    """One request. `doing` names it in errors: "create Job x"."""

    method: str
    path: str
    doing: str
    query: tuple[tuple[str, str], ...] = ()
    body: dict[str, Any] | None = None
    content_type: str = "application/json"


@dataclass(frozen=True)
class Answer:
    """The whole response. `repeated`: an earlier try of the request may have taken effect."""

    status: int
    body: bytes
    warnings: tuple[str, ...]
    repeated: bool


class Connection:
    """Connections to one API server. Thread-safe."""

    def __init__(
        self,
        access: kubeconfig.Access,
        renew: Callable[[], kubeconfig.Access],
        *,
        timeout_s: float = RETRY_TIMEOUT_S,
    ):
        self.access = access
        self.timeout_s = timeout_s
        self.requests = 0
        #: Called once per outage with a message that the server is being waited for.
        self.say: Callable[[str], None] = lambda _text: None
        self._reported = False
        self._renew = renew
        self._lock = threading.Lock()
        self._rest = RESTClientObject(access.configuration)
        self._renewed_at = time.monotonic()
        self._troubled_at = float("-inf")

    @property
    def settling(self) -> bool:
        """Whether the server was unreachable a moment ago, so that 401 and 403 may be temporary."""
        return time.monotonic() - self._troubled_at < SETTLING_S

    @property
    def host(self) -> str:
        return str(self.access.configuration.host)

    def reach(self, *, timeout_s: float = CONTACT_TIMEOUT_S, where: str = "") -> None:
        """Return once the server has answered a request for its version, which needs no permission.

        Raises Failure(NETWORK) if it does not answer within about `timeout_s`, Failure(UNAUTHORIZED) if it rejects
        the credentials.
        """
        request = Request("GET", "/version", "ask the API server for its version")
        try:
            self.ask(request, timeout_s=timeout_s, read_timeout_s=timeout_s, where=where)
        except KubernetesApiError as error:
            # 5xx may be a gateway's answer for a server that is away; 429 is the server's own.
            if error.cause == "unauthorized" or error.status >= 500:
                raise

    def ask(
        self,
        request: Request,
        *,
        timeout_s: float | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
        where: str = "",
    ) -> Answer:
        """The answer, if its status is below 400. Raises Failure, for a final error as `api_errors.api_error` does.

        Retried with growing waits until `timeout_s` has passed: lost connections, 429, 5xx, and a missing
        permission while the server is settling. 401 is retried once with refreshed credentials.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        attempt, repeated, renewed, began = 0, False, False, time.monotonic()
        while True:
            retry_after_s = None
            try:
                response = self._send(request, read_timeout_s, where)
                body = bytes(response.data)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                ended: Failure = self._lost(error, where)
                repeated = repeated or not isinstance(error, urllib3.exceptions.NewConnectionError)
            else:
                if response.status < 400:
                    self._reported = False
                    return Answer(response.status, body, _warnings(response), repeated)
                if response.status == 401 and not renewed and self._renewed():
                    renewed = True
                    continue
                answer = answer_of(body)
                ended = failure = api_error(
                    response.status, answer, doing=request.doing, where=where or self.host
                )
                if response.status >= 500 and not is_final(response.status, answer):
                    self._troubled_at = time.monotonic()
                unsettled = failure.cause in ("forbidden", "unauthorized") and self.settling
                if is_final(response.status, answer) and not unsettled:
                    failure.repeated = repeated
                    raise failure
                repeated = repeated or response.status in _AMBIGUOUS
                retry_after_s = _seconds(response.headers.get("Retry-After"))
            attempt += 1
            wait_s, waited_s = _wait_s(attempt, retry_after_s), time.monotonic() - began
            if waited_s + wait_s > timeout_s:
                raise ended
            if waited_s >= REPORT_AFTER_S:
                self._report_wait(ended, timeout_s)
            time.sleep(wait_s)

    def _report_wait(self, trouble: Failure, timeout_s: float) -> None:
        with self._lock:
            reported, self._reported = self._reported, True
        if not reported:
            self.say(
                f"waiting for the API server {self.host}, up to {timeout_s:.0f} s (Ctrl-C to stop): {trouble.what}"
            )

    def open(self, request: Request, *, read_timeout_s: float, where: str = "") -> Stream:
        """A streamed answer; not retried. Raises Failure as `ask` does."""
        try:
            response = self._send(request, read_timeout_s, where)
            if response.status == 401 and self._renewed():
                response.close()
                response = self._send(request, read_timeout_s, where)
            if response.status >= 400:
                answer = answer_of(bytes(response.data))
                raise api_error(response.status, answer, doing=request.doing, where=where or self.host)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._lost(error, where) from None
        return Stream(response, lambda error: self._lost(error, where))

    def _lost(self, error: Exception, where: str) -> Failure:
        self._troubled_at = time.monotonic()
        return _unreachable(error, self.host, where)

    def _send(self, request: Request, read_timeout_s: float, where: str) -> Any:
        with self._lock:
            self.requests += 1
            auth = self.access.configuration.auth_settings()
            rest = self._rest
        headers = {"Accept": "application/json, */*", "User-Agent": "tuneyard"}
        if "BearerToken" in auth:
            headers["Authorization"] = _header(auth["BearerToken"]["value"], where or self.host)
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        query = f"?{urlencode(request.query, quote_via=quote)}" if request.query else ""
        try:
            answer = rest.request(
                request.method,
                f"{self.host}{request.path}{query}",
                headers=headers,
                body=request.body,
                # A connection never takes longer than the answer may.
                _request_timeout=(min(CONNECT_TIMEOUT_S, read_timeout_s), read_timeout_s),
            )
        except ApiException as error:  # how the client reports TLS errors
            if "CERTIFICATE" in str(error.reason):
                raise _untrusted(str(error.reason), where or self.host) from None
            raise urllib3.exceptions.ProtocolError(str(error.reason).replace("\n", ": ")) from None
        return answer.response

    def _renewed(self) -> bool:
        """Refresh the credentials (a rotated token, an exec plugin); False if that was done a moment ago."""
        with self._lock:
            if time.monotonic() - self._renewed_at < RENEWAL_INTERVAL_S:
                return False
            self._renewed_at = time.monotonic()
            self.access = self._renew()
            self._rest = RESTClientObject(self.access.configuration)
            return True


def _wait_s(attempt: int, retry_after_s: float | None) -> float:
    growing = min(LONGEST_WAIT_S, 0.25 * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
    return max(growing, retry_after_s or 0.0)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


def _header(credentials: str, where: str) -> str:
    """Raises Failure(UNAUTHORIZED), without quoting the token, if a header cannot carry it."""
    try:
        return header_secret(credentials)
    except ValueError as error:
        raise Failure(
            Reason.UNAUTHORIZED,
            f"the token {error}",
            where=where,
            next_step="correct the token, or the file that tokenFile names, in the kubeconfig",
        ) from None


def _warnings(response: Any) -> tuple[str, ...]:
    """The texts of `Warning: 299 - "text"` headers; several may share one."""
    found: list[str] = []
    for header in response.headers.getlist("Warning"):
        found += re.findall(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"', header)
    return tuple(re.sub(r"\\(.)", r"\1", text) for text in found)


def _unreachable(error: Exception, host: str, where: str) -> Failure:
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        why = "its name does not resolve"
    elif "Connection refused" in str(error):
        why = "connection refused"
    elif isinstance(error, urllib3.exceptions.NewConnectionError):
        why = "no connection"
    elif isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        why = "the connection timed out"
    elif isinstance(error, urllib3.exceptions.TimeoutError):
        why = "the answer timed out"
    else:
        why = f"the connection was lost ({type(error).__name__})"
    return Failure(
        Reason.NETWORK,
        f"the API server does not answer: {why}",
        where=where or host,
        next_step="check the network and the server's address: kubectl cluster-info",
    )


def _untrusted(text: str, where: str) -> Failure:
    return Failure(
        Reason.NETWORK,
        "the API server's certificate is not trusted",
        where=where,
        problems=(" ".join(text.split())[:300],),
        next_step="correct certificate-authority, or the server's address, in the kubeconfig",
    )
