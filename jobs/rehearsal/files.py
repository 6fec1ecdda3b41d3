"""/v1/files, stored byte for byte, and /v1/models."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from jobs.rehearsal.errors import ApiError, invalid
from jobs.rehearsal.job_store import OPEN, JobStore
from jobs.rehearsal.server_context import ServerContext, shown, tenant_of
from jobs.rehearsal.state import StoredObject
from launcher.spec.providers import embedded_provider

PURPOSES = ("fine-tune", "batch", "user_data", "assistants", "vision", "evals")
MAXIMUM_FILE_BYTES = embedded_provider().limits.upload_bytes
_MAXIMUM_NAME = 255


class Files:
    """The endpoints below /v1/files."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def upload(self, request: Request) -> JSONResponse:
        """Store one file from multipart/form-data with its purpose."""
        try:
            async with request.form(max_files=1, max_fields=8, max_part_size=1 << 16) as form:
                file, purpose = form.get("file"), form.get("purpose")
                if file is None or isinstance(file, str):
                    raise invalid("Missing required parameter: 'file'.", "file", "missing_required_parameter")
                if not isinstance(purpose, str) or purpose not in PURPOSES:
                    raise invalid(
                        f"'purpose' must be one of {', '.join(PURPOSES)}.", "purpose", "invalid_value"
                    )
                data = await file.read()
                name = file.filename or "upload"
        except (HTTPException, ClientDisconnect, KeyError, UnicodeDecodeError):
            raise invalid("We could not parse the multipart body of your request.") from None
        if not data:
            raise invalid("File is empty.", "file", "empty_file")
        if len(name) > _MAXIMUM_NAME or not name.isprintable():
            raise invalid("Invalid file name.", "file", "invalid_value")
        if purpose in ("fine-tune", "batch") and not name.endswith(".jsonl"):
            raise invalid(
                f"Invalid file format for purpose {purpose}. Supported format: .jsonl",
                "file",
                "invalid_value",
            )
        stored = self._context.state.add_file(tenant_of(request), data, filename=name, purpose=purpose)
        self._context.state.count(f"{tenant_of(request)}/uploads")
        return JSONResponse(stored.to_wire())

    async def index(self, request: Request) -> JSONResponse:
        return self._context.page("file", request)

    async def retrieve(self, request: Request) -> JSONResponse:
        return JSONResponse(self._context.find("file", request, "File object").to_wire())

    async def content(self, request: Request) -> Response:
        found = self._context.find("file", request, "File object")
        data = self._context.state.file_path(found.id).read_bytes()
        return Response(data, media_type="application/octet-stream")

    async def delete(self, request: Request) -> JSONResponse:
        found = self._context.find("file", request, "File object")
        for job in JobStore(self._context.state).all(tenant=found.tenant):
            used = (job.training_file, job.validation_file)
            if found.id in used and job.status in (*OPEN, "paused"):
                raise ApiError(
                    409, f"File {found.id} is used by {job.id}, which has not ended.", code="file_in_use"
                )
        self._context.state.delete_file(found)
        return JSONResponse({"id": found.id, "object": "file", "deleted": True})


class Models:
    """The endpoints below /v1/models."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def index(self, request: Request) -> JSONResponse:
        base = [_base(name) for name in sorted(self._context.models)]
        tuned = [one.to_wire() for one in self._context.state.list("model", tenant=tenant_of(request))]
        return JSONResponse({"object": "list", "data": [*base, *tuned]})

    async def retrieve(self, request: Request) -> JSONResponse:
        name = request.path_params["id"]
        if name in self._context.models:
            return JSONResponse(_base(name))
        return JSONResponse(self._tuned(request).to_wire())

    async def delete(self, request: Request) -> JSONResponse:
        found = self._tuned(request)
        self._context.state.remove(found)
        return JSONResponse({"id": found.id, "object": "model", "deleted": True})

    def _tuned(self, request: Request) -> StoredObject:
        name = request.path_params["id"]
        found = self._context.state.get("model", tenant_of(request), name)
        if found is None:
            raise ApiError(
                404, f"The model '{shown(name)}' does not exist", param="model", code="model_not_found"
            )
        return found


def _base(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tuneyard-rehearsal"}
