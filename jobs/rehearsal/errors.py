"""Errors in the API's format and words: an HTTP status and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An error response. The message never contains a key."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def not_found(what: str, name: str, param: str = "id") -> ApiError:
    """404, as the API phrases it."""
    return ApiError(404, f"No such {what}: {name}", param=param, code="not_found")


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400 for one parameter."""
    return ApiError(400, message, param=param, code=code)


def unauthorized(message: str = "Incorrect API key provided.") -> ApiError:
    """401 for a key that is not known."""
    return ApiError(401, message, code="invalid_api_key")


def rate_limited(retry_after_s: float) -> ApiError:
    """429 with a time to wait."""
    return ApiError(
        429,
        f"Rate limit reached. Please try again in {retry_after_s:g}s.",
        kind="requests",
        code="rate_limit_exceeded",
        headers={"retry-after": f"{retry_after_s:g}"},
    )


def server_error(status: int = 500) -> ApiError:
    """500 without details."""
    return ApiError(
        status,
        "The server had an error while processing your request. Sorry about that!",
        kind="server_error",
    )
