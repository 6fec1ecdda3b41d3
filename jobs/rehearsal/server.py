"""Runs the application under uvicorn. Injected faults can drop a connection without a response."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobs.rehearsal.app import ServerSettings, build

_connections: dict[tuple[str, int], asyncio.Transport] = {}
_MAXIMUM_CONNECTIONS = 512
_GRACE_S = 70


class DroppableConnection(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, which registers each client's transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            _connections[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.client is not None:
            _connections.pop(self.client, None)
        super().connection_lost(exc)


def abort(scope: Scope) -> None:
    """Drop the connection of the request `scope`."""
    if (transport := _connections.get(tuple(scope["client"]))) is not None:
        transport.abort()


def serve(
    settings: ServerSettings, *, host: str, port: int, ready: Callable[[str], None] = lambda _url: None
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` receives the base URL once the server listens. Port 0: any free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    bound = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        build(settings, abort),
        http=DroppableConnection,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        limit_concurrency=_MAXIMUM_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
    )
    _Server(config, lambda: ready(f"http://{shown}:{bound}/v1")).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Calls `ready` after startup. At shutdown it drops open connections; the running job is saved."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        for transport in list(_connections.values()):
            with suppress(OSError):
                transport.abort()
        super().handle_exit(sig, frame)
