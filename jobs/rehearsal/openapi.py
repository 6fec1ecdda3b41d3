"""The server's OpenAPI 3.1 description, generated from the models that validate its requests.

FastAPI is not used: it parses bodies itself, accepts NaN, answers malformed bodies in its own words and refuses
HEAD. With the API's own errors kept, the description would still be declared endpoint by endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from jobs.rehearsal.schemas import CreateBatch, CreateCompletion, CreateJob

_REFERENCE = "#/components/schemas/{model}"
_BODIES: dict[tuple[str, str], type[BaseModel]] = {
    ("POST", "/v1/fine_tuning/jobs"): CreateJob,
    ("POST", "/v1/chat/completions"): CreateCompletion,
    ("POST", "/v1/batches"): CreateBatch,
}
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": ["fine-tune", "batch", "user_data"]},
    },
}
_PAGES = (
    "/v1/files",
    "/v1/fine_tuning/jobs",
    "/v1/batches",
    "/v1/fine_tuning/jobs/{id}/events",
    "/v1/fine_tuning/jobs/{id}/checkpoints",
)
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_PAGE_PARAMETERS = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 20},
    },
    {"name": "after", "in": "query", "schema": {"type": "string"}},
]


class ErrorDetail(BaseModel):
    """The body of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """An error answer."""

    error: ErrorDetail


class Page(BaseModel):
    """One page of a list."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


def describe(endpoints: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The description of these (method, path) pairs."""
    paths: dict[str, Any] = {}
    for method, path in endpoints:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path)
    models = [(model, "validation") for model in (Error, Page, *_BODIES.values())]
    _, schemas = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tuneyard rehearsal",
            "version": "1",
            "description": "The OpenAI fine-tuning, files, chat completions and batches protocol; it really trains.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(method: str, path: str) -> dict[str, Any]:
    name = path.removeprefix("/v1/").replace("/", "_").replace("{id}", "id")
    is_page = method == "GET" and path in _PAGES
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "parameters": [*([_ID] if "{id}" in path else []), *(_PAGE_PARAMETERS if is_page else [])],
        "responses": {
            "200": {"description": "Done.", "content": _success(path, is_list=is_page)},
            "4XX": {"description": "The request cannot be carried out.", "content": _json(_reference(Error))},
        },
    }
    if (model := _BODIES.get((method, path))) is not None:
        operation["requestBody"] = {"required": True, "content": _json(_reference(model))}
    elif (method, path) == ("POST", "/v1/files"):
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}
    return operation


def _success(path: str, *, is_list: bool) -> dict[str, Any]:
    if path.endswith("/content"):
        return {"application/octet-stream": {"schema": {}}}
    return _json(_reference(Page) if is_list or path == "/v1/models" else {"type": "object"})


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
