"""Shared by the endpoints: the server's components, pagination, JSON bodies."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from jobs.rehearsal.errors import ApiError, invalid, not_found
from jobs.rehearsal.request_batcher import BatchKey, RequestBatcher
from jobs.rehearsal.state import State, StoredObject
from jobs.rehearsal.training import Trainer

_MAXIMUM_PAGE = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class ServerContext:
    """The components of a running server."""

    state: State
    models: dict[str, Path]  # model name of the protocol -> directory of the open model
    trainer: Trainer
    batcher: RequestBatcher

    def model_key(self, tenant: str, name: str, max_new_tokens: int) -> BatchKey:
        """Model and adapter that answer for `name`. Raises ApiError(404)."""
        if name in self.models:
            return BatchKey(self.models[name], None, max_new_tokens)
        tuned = self.state.get("model", tenant, name)
        if tuned is None or tuned.body["_base"] not in self.models:
            raise ApiError(
                404,
                f"The model `{shown(name)}` does not exist or you do not have access to it.",
                param="model",
                code="model_not_found",
            )
        adapter = self.state.root / tuned.body["_adapter"]
        return BatchKey(self.models[tuned.body["_base"]], adapter, max_new_tokens)

    def find(self, kind: str, request: Request, what: str) -> StoredObject:
        """This tenant's object with the id in the path. Raises ApiError(404)."""
        name = request.path_params["id"]
        found = self.state.get(kind, tenant_of(request), name)
        if found is None:
            raise not_found(what, shown(name))
        return found

    def page(self, kind: str, request: Request, *, owner: str | None = None) -> JSONResponse:
        """One page of a list: `limit`, `after`, and for files `order` and `purpose`."""
        query = request.query_params
        limit = _page_size(query.get("limit", "20"), "limit")
        tenant = tenant_of(request)
        newest_first = query.get("order", "desc") != "asc"
        after: int | None = None
        if (name := query.get("after")) is not None:
            last = self.state.get(kind, tenant, name)
            if last is None or (owner is not None and last.owner != owner):
                raise invalid(f"No such object to continue after: {shown(name)}", "after")
            after = last.seq
        purpose = query.get("purpose")
        # A filter by metadata reads all objects; every other list reads one page.
        is_filtered = any(name.startswith("metadata") for name in query)
        found = self.state.list(
            kind,
            tenant=tenant,
            owner=owner,
            after=after,
            newest_first=newest_first,
            limit=-1 if is_filtered else limit + 1,
            fields={"purpose": purpose} if purpose else None,
        )
        if is_filtered:
            found = [one for one in found if _has_metadata(one, dict(query))]
        data = [one.to_wire() for one in found[:limit]]
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": len(found) > limit,
            }
        )


def tenant_of(request: Request) -> str:
    """The tenant of the request's key, set by the middleware."""
    return str(request.scope["state"]["tenant"])


def shown(name: str) -> str:
    """A client's text, printable and shortened for a message."""
    return _CONTROL.sub("?", name[:100])


async def json_body(request: Request) -> Any:
    """The body as JSON. Raises ApiError(400)."""
    try:
        return json.loads(await request.body(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise invalid(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your "
            "HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
        ) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _page_size(text: str, param: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= _MAXIMUM_PAGE * 10:
        raise invalid(f"Invalid value for '{param}': expected a whole number from 1.", param, "invalid_value")
    return min(int(text), _MAXIMUM_PAGE)


def _has_metadata(one: StoredObject, query: dict[str, str]) -> bool:
    """Whether the object matches the query's `metadata[key]=value`; `metadata=null` matches empty metadata."""
    metadata = one.body.get("metadata") or {}
    if query.get("metadata") == "null":
        return not metadata
    for name, value in query.items():
        if name.startswith("metadata[") and name.endswith("]") and metadata.get(name[9:-1]) != value:
            return False
    return True
