"""The ASGI application: routes, middleware, and startup and shutdown of the background tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from jobs.rehearsal import openapi
from jobs.rehearsal.batches import Batches
from jobs.rehearsal.completions import Completions
from jobs.rehearsal.errors import ApiError
from jobs.rehearsal.faults import Faults
from jobs.rehearsal.files import Files, Models
from jobs.rehearsal.fine_tuning import FineTuning
from jobs.rehearsal.middleware import Middleware, RateLimits, digest
from jobs.rehearsal.recipe import Recipe
from jobs.rehearsal.request_batcher import RequestBatcher
from jobs.rehearsal.server_context import ServerContext, tenant_of
from jobs.rehearsal.state import State
from jobs.rehearsal.status_page import StatusPage
from jobs.rehearsal.training import Trainer

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server. `keys` maps an API key to its tenant."""

    state: Path
    models: dict[str, Path]
    keys: dict[str, str] = field(repr=False)
    recipe: Recipe = field(default_factory=Recipe)
    faults: Faults = field(default_factory=Faults)
    requests_per_minute: int = 10_000
    train_worker: tuple[str, ...] = ("-m", "jobs.rehearsal.train_worker")
    answer_worker: tuple[str, ...] = ("-m", "jobs.rehearsal.answer_worker")


def build(settings: ServerSettings, abort: Callable[[Scope], None]) -> ASGIApp:
    """The ASGI application; `abort` drops a request's connection."""
    state = State(settings.state)
    trainer = Trainer(
        state, settings.models, settings.recipe, settings.train_worker, settings.faults.dropped_rows
    )
    batcher = RequestBatcher(settings.recipe, settings.answer_worker, settings.state / "answering.log")
    context = ServerContext(state, settings.models, trainer, batcher)
    batches = Batches(context)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(trainer.run()), asyncio.create_task(batcher.run())]
        batches.resume()
        try:
            yield
        finally:
            await batches.stop()
            await trainer.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            state.close()

    app = Starlette(
        routes=_routes(context, batches),
        lifespan=lifespan,
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
    )
    return Middleware(
        app,
        state=state,
        tenants={digest(key): tenant for key, tenant in settings.keys.items()},
        limits=RateLimits(settings.requests_per_minute),
        faults=settings.faults,
        abort=abort,
    )


def _routes(context: ServerContext, batches: Batches) -> list[Route]:
    files, models = Files(context), Models(context)
    jobs, completions = FineTuning(context), Completions(context)
    endpoints: dict[tuple[str, str], Endpoint] = {
        ("POST", "/v1/files"): files.upload,
        ("GET", "/v1/files"): files.index,
        ("GET", "/v1/files/{id}"): files.retrieve,
        ("DELETE", "/v1/files/{id}"): files.delete,
        ("GET", "/v1/files/{id}/content"): files.content,
        ("GET", "/v1/models"): models.index,
        ("GET", "/v1/models/{id}"): models.retrieve,
        ("DELETE", "/v1/models/{id}"): models.delete,
        ("POST", "/v1/fine_tuning/jobs"): jobs.create,
        ("GET", "/v1/fine_tuning/jobs"): jobs.index,
        ("GET", "/v1/fine_tuning/jobs/{id}"): jobs.retrieve,
        ("GET", "/v1/fine_tuning/jobs/{id}/events"): jobs.events,
        ("GET", "/v1/fine_tuning/jobs/{id}/checkpoints"): jobs.checkpoints,
        ("POST", "/v1/fine_tuning/jobs/{id}/cancel"): jobs.cancel,
        ("POST", "/v1/fine_tuning/jobs/{id}/pause"): jobs.pause,
        ("POST", "/v1/fine_tuning/jobs/{id}/resume"): jobs.resume,
        ("POST", "/v1/chat/completions"): completions.create,
        ("POST", "/v1/batches"): batches.create,
        ("GET", "/v1/batches"): batches.index,
        ("GET", "/v1/batches/{id}"): batches.retrieve,
        ("POST", "/v1/batches/{id}/cancel"): batches.cancel,
    }
    described = openapi.describe(sorted(endpoints))

    async def description(_request: Request) -> Response:
        return JSONResponse(described)

    async def counters(request: Request) -> Response:
        """Counters of this tenant's requests."""
        own = f"{tenant_of(request)}/"
        found = context.state.counters().items()
        return JSONResponse({name.removeprefix(own): n for name, n in found if name.startswith(own)})

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    by_path: dict[str, list[tuple[str, Endpoint]]] = {}
    for (method, path), endpoint in endpoints.items():
        by_path.setdefault(path, []).append((method, endpoint))
    routes = [
        Route(path, endpoint, methods=[method])
        for path, members in by_path.items()
        for method, endpoint in members
    ]
    return [
        *routes,
        Route("/openapi.json", description),
        Route("/healthz", health),
        Route("/rehearsal/counters", counters),
        Route("/", StatusPage(context).show),
    ]


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"Invalid URL ({request.method} …)" if error.status_code == 404 else str(error.detail)
    return JSONResponse(ApiError(error.status_code, text).body(), error.status_code, error.headers)
