"""ASGI middleware: body size limits, API keys, rate limits and injected faults; headers of every response.

As plain ASGI it counts body bytes before they are buffered. API keys are compared by digest in constant time
and are not stored.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.rehearsal.errors import ApiError, rate_limited, server_error, unauthorized
from jobs.rehearsal.faults import HEADER, Faults, Rule
from jobs.rehearsal.files import MAXIMUM_FILE_BYTES
from jobs.rehearsal.state import State

_MAXIMUM_JSON_BYTES = 16 << 20
_MAXIMUM_UPLOAD_BYTES = MAXIMUM_FILE_BYTES + (1 << 20)
_PUBLIC = ("/openapi.json", "/healthz")
_PAGE = "/"


def digest(key: str) -> bytes:
    """The digest under which a key is kept."""
    return hashlib.sha256(key.encode()).digest()


@dataclass
class RateLimits:
    """Requests per tenant and minute; a window starts with the tenant's first request."""

    requests_per_minute: int
    _used: dict[str, tuple[float, int]] = field(default_factory=dict)

    def count(self, tenant: str) -> dict[str, str]:
        """Count one request; returns the rate-limit headers. Raises ApiError(429)."""
        now = time.monotonic()
        start, used = self._used.get(tenant, (now, 0))
        if now - start >= 60:
            start, used = now, 0
        left_s = 60 - (now - start)
        if used >= self.requests_per_minute:
            raise rate_limited(round(left_s, 2))
        self._used[tenant] = (start, used + 1)
        return {
            "x-ratelimit-limit-requests": str(self.requests_per_minute),
            "x-ratelimit-remaining-requests": str(self.requests_per_minute - used - 1),
            "x-ratelimit-reset-requests": f"{left_s:.3f}s",
        }


class Middleware:
    """See the module. `abort` drops a client's connection without a response."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        state: State,
        tenants: dict[bytes, str],
        limits: RateLimits,
        faults: Faults,
        abort: Callable[[Scope], None],
    ) -> None:
        self._app = app
        self._state = state
        self._tenants = tenants
        self._limits = limits
        self._faults = faults
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        extra = {"x-request-id": f"req_{secrets.token_hex(16)}", "openai-version": "2020-10-01"}
        is_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                extra["openai-processing-ms"] = str(round(1000 * (time.monotonic() - started)))
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in extra.items()),
                ]
            await send(message)

        try:
            await self._handle(scope, _limited(scope, receive), send_with_headers, extra)
        except ApiError as error:
            if not is_started:
                response = JSONResponse(error.body(), error.status, error.headers)
                await response(scope, receive, send_with_headers)
        except Exception:
            traceback.print_exc()
            if not is_started:
                await JSONResponse(server_error().body(), 500)(scope, receive, send_with_headers)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, extra: dict[str, str]) -> None:
        path = scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        scope.setdefault("state", {})
        if path in _PUBLIC:
            await self._app(scope, receive, send)
            return
        scope["state"]["tenant"] = self._tenant(headers, basic=path == _PAGE)
        extra["openai-organization"] = f"org-{scope['state']['tenant']}"
        extra.update(self._limits.count(scope["state"]["tenant"]))
        tenant = scope["state"]["tenant"]
        fault = self._faults.find(self._state, tenant, scope["method"], path, headers.get(HEADER))
        if fault is None:
            await self._app(scope, receive, send)
            return
        self._state.count(f"{tenant}/faults/{fault.kind}{path}")
        if fault.kind == "lost-answer":
            await self._app(scope, receive, _discard)
            self._abort(scope)
            return
        await self._inject(fault, scope)
        await self._app(scope, receive, send)

    async def _inject(self, fault: Rule, scope: Scope) -> None:
        """Faults that precede the request's execution. Raises ApiError."""
        if fault.kind == "rate-limit":
            raise rate_limited(1.0 if fault.retry_after_s is None else fault.retry_after_s)
        if fault.kind == "server-error":
            raise server_error(fault.status)
        if fault.kind == "expired-key":
            raise unauthorized("Your API key has expired. Please create a new one.")
        if fault.kind == "reset":
            self._abort(scope)
            raise server_error()
        if fault.kind == "hang":
            await asyncio.sleep(fault.seconds)
            self._abort(scope)
            raise server_error()

    def _tenant(self, headers: dict[str, str], *, basic: bool) -> str:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if basic and scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        elif scheme.lower() != "bearer":
            given = ""
        if basic and not given:
            challenge = {
                "www-authenticate": 'Basic realm="rehearsal: any user name, the API key as password"'
            }
            raise ApiError(401, "An API key is needed.", code="invalid_api_key", headers=challenge)
        if not given:
            raise unauthorized("You didn't provide an API key.")
        wanted = digest(given.strip())
        for known, tenant in self._tenants.items():
            if hmac.compare_digest(known, wanted):
                return tenant
        raise unauthorized()


def _limited(scope: Scope, receive: Receive) -> Receive:
    """`receive` that raises ApiError(413) if the body exceeds the endpoint's limit."""
    limit = _MAXIMUM_UPLOAD_BYTES if scope["path"] == "/v1/files" else _MAXIMUM_JSON_BYTES
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise ApiError(413, f"The body is larger than {limit} bytes.", code="request_too_large")
        return message

    return counted


async def _discard(message: Message) -> None:
    """Discard a lost response."""
