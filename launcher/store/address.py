"""Store addresses: `s3://bucket/prefix?endpoint_url=…`.

An address holds everything that is not secret, so that one string is valid on a laptop, in a conductor and in a
pod. Credentials come from the usual chain (environment, profile, container or instance role), never from here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from launcher.outcome import Failure, Reason
from launcher.spec.names import relative_path

Addressing = Literal["auto", "path", "virtual"]
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")
_EXAMPLE = "s3://bucket/prefix?endpoint_url=https://s3.example.org&region=eu-west-1"
#: Options in the query -> parser.
_OPTIONS: dict[str, Callable[[str], object]] = {
    "endpoint_url": str,
    "region": str,
    "profile": str,
    "addressing": str,
    "ca_bundle": str,
    "allow_http": lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    "bandwidth_mib_s": float,
}
#: An unknown option is quoted only if it matches: it cannot be a secret in the wrong place.
_OPTION_NAME = re.compile(r"[A-Za-z_-]{1,24}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class TransferLimits:
    """Deadlines, retries and sizes of requests. Times are seconds."""

    connect_timeout_s: float = 10
    #: Silence on a connection.
    read_timeout_s: float = 60
    #: One try of a request, with the bytes of a part.
    call_timeout_s: float = 300
    #: Retries of one request while the server is away or busy: refused and closed connections, timeouts, 429, 5xx.
    patience_s: float = 600
    #: The same for a server that has never answered this process.
    first_contact_s: float = 15
    #: Tries after an answer with wrong bytes (their digest does not match).
    wrong_answers: int = 4
    #: Longest time between check and write of one of several writers, if the server ignores conditions.
    settle_s: float = 20.0
    part_bytes: int = 16 << 20
    parallel: int = 8
    #: Smaller files share objects of at most `pack_bytes`, if there are more of them than `loose_files`.
    small_file_bytes: int = 8 << 20
    pack_bytes: int = 32 << 20
    loose_files: int = 8


@dataclass(frozen=True)
class S3Address:
    """A bucket and prefix in S3-compatible storage."""

    bucket: str
    #: Without slashes at its ends; may be empty.
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    #: `auto`: path style with an endpoint, virtual hosts on AWS.
    addressing: Addressing = "auto"
    ca_bundle: str | None = None
    #: Permit plain http, which is neither private nor protected against changes. Loopback is always permitted.
    allow_http: bool = False
    bandwidth_mib_s: float | None = None
    limits: TransferLimits = field(default=TransferLimits(), compare=False)

    def __str__(self) -> str:
        options = {
            item.name: str(value).lower() if isinstance(value, bool) else str(value)
            for item in fields(self)
            if item.name in _OPTIONS and (value := getattr(self, item.name)) != item.default
        }
        base = f"s3://{self.bucket}" + (f"/{quote(self.prefix)}" if self.prefix else "")
        return f"{base}?{urlencode(options, safe=':/')}" if options else base

    def key(self, path: str) -> str:
        """The object key of a store path."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def with_limits(self, **limits: float) -> S3Address:
        return replace(self, limits=replace(self.limits, **limits))  # type: ignore[arg-type]


def parse(address: str) -> S3Address:
    """The address. Raises Failure(USAGE) with every problem; values are not quoted, because they may be secrets."""
    problems: list[str] = []
    try:
        parts = urlsplit(address)
        host = parts.netloc
    except ValueError:
        raise _refused(["it is no URL"]) from None
    if "@" in host or ":" in host:
        problems.append("it holds a user name, password or port; credentials come from the environment")
    elif not _BUCKET.match(host):
        problems.append("the bucket's name is not one: 3 to 63 of a-z, 0-9, '-', '.'")
    prefix = unquote(parts.path).strip("/")
    if prefix:
        try:
            relative_path(prefix)
        except ValueError:
            problems.append("the prefix has empty, hidden or '..' parts")
    options: dict[str, object] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        read = _OPTIONS.get(name)
        if read is None:
            message = (
                f"no option '{name}'"
                if text and _OPTION_NAME.fullmatch(name)
                else "an option it does not have"
            )
            problems.append(f"{message}; there are {', '.join(_OPTIONS)}")
            continue
        try:
            options[name] = read(text)
        except (ValueError, KeyError):
            problems.append(f"{name} cannot be read")
    if options.get("addressing", "auto") not in get_args(Addressing):
        problems.append(f"addressing is one of {', '.join(get_args(Addressing))}")
    if not 0 < float(str(options.get("bandwidth_mib_s", 1))) < float("inf"):
        problems.append("bandwidth_mib_s must be more than 0")
    if "endpoint_url" in options:
        problems += check_endpoint(str(options["endpoint_url"]), bool(options.get("allow_http")))
    if parts.fragment:
        problems.append("it has a '#'")
    if problems:
        raise _refused(problems)
    return S3Address(bucket=host, prefix=prefix, **options)  # type: ignore[arg-type]


def check_endpoint(url: str, allow_http: bool) -> list[str]:
    """Problems of an endpoint, from the address or the environment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return ["the endpoint is no URL"]
    problems = []
    if parts.scheme not in ("http", "https") or not host:
        problems.append("the endpoint must be https://host[:port]")
    if "@" in parts.netloc:
        problems.append("the endpoint holds a user name or password; credentials come from the environment")
    if parts.query or parts.fragment:
        problems.append("the endpoint has a query or a '#'")
    if parts.scheme == "http" and host not in _LOOPBACK and not (allow_http or http_allowed()):
        problems.append(
            "the endpoint is plain http; say allow_http=true in the address (or "
            "TUNEYARD_STORE_ALLOW_HTTP=1) if the network on the way is trusted"
        )
    return problems


def http_allowed() -> bool:
    """Whether the environment permits plain http."""
    return os.environ.get("TUNEYARD_STORE_ALLOW_HTTP", "").lower() in ("1", "true", "yes")


def _refused(problems: list[str]) -> Failure:
    return Failure(
        Reason.USAGE,
        "the store's address (--store, TUNEYARD_STORE or store.outside of the site file) cannot be used",
        problems=tuple(problems),
        next_step=f"for example {_EXAMPLE}",
    )
