"""The server's OpenAPI 3.1 description, from the same models that read its requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from jobs.rehearsal import schemas as wire

_BODIES: dict[tuple[str, str], type[BaseModel]] = {
    ("POST", "/v1/fine_tuning/jobs"): wire.CreateJob,
    ("POST", "/v1/chat/completions"): wire.CreateCompletion,
    ("POST", "/v1/batches"): wire.CreateBatch,
}
_LISTS = (
    "/v1/files",
    "/v1/fine_tuning/jobs",
    "/v1/batches",
    "/v1/fine_tuning/jobs/{id}/events",
    "/v1/fine_tuning/jobs/{id}/checkpoints",
)
_OBJECT: dict[str, Any] = {"type": "object"}
_LIST: dict[str, Any] = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": _OBJECT},
        "first_id": {"type": ["string", "null"]},
        "last_id": {"type": ["string", "null"]},
        "has_more": {"type": "boolean"},
    },
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(endpoints: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The description of these (method, path) pairs."""
    schemas: dict[str, Any] = {"Error": _ERROR, "List": _LIST}
    paths: dict[str, Any] = {}
    for method, path in endpoints:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, schemas)
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
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(method: str, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    name = path.removeprefix("/v1/").replace("/", "_").replace("{id}", "id")
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "responses": _responses(method, path),
    }
    parameters = []
    if "{id}" in path:
        parameters.append(
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        )
    if method == "GET" and path in _LISTS:
        limit = {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 20}
        parameters += [
            {"name": "limit", "in": "query", "schema": limit},
            {"name": "after", "in": "query", "schema": {"type": "string"}},
        ]
    if parameters:
        operation["parameters"] = parameters
    if (model := _BODIES.get((method, path))) is not None:
        operation["requestBody"] = _json_body(model, schemas)
    elif (method, path) == ("POST", "/v1/files"):
        operation["requestBody"] = _upload_body()
    return operation


def _responses(method: str, path: str) -> dict[str, Any]:
    if path.endswith("/content"):
        success: dict[str, Any] = {"application/octet-stream": {"schema": {}}}
    else:
        is_list = method == "GET" and (path in _LISTS or path == "/v1/models")
        schema = {"$ref": "#/components/schemas/List"} if is_list else _OBJECT
        success = {"application/json": {"schema": schema}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": "Done.", "content": success},
        "4XX": {"description": "The request cannot be carried out.", "content": error},
    }


def _json_body(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"required": True, "content": {"application/json": {"schema": reference}}}


def _upload_body() -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["file", "purpose"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": {"type": "string", "enum": ["fine-tune", "batch", "user_data"]},
        },
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
