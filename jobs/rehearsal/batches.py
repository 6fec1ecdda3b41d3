"""/v1/batches: a file of requests, grouped deterministically.

The file alone decides which requests are answered together, and a group that a crash interrupted is answered
again as a whole. The same file therefore gives the same answers, even if the server is killed in between.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from jobs.rehearsal import schemas
from jobs.rehearsal.completions import completion, prepare
from jobs.rehearsal.errors import ApiError, invalid
from jobs.rehearsal.request_batcher import BatchKey
from jobs.rehearsal.server_context import ServerContext, json_body, shown, tenant_of
from jobs.rehearsal.state import StoredObject, new_id, now
from jobs.rehearsal.worker_messages import Conversation, Generated
from launcher.spec.providers import embedded_provider

_LIMITS = embedded_provider().limits
_WINDOW_S = 24 * 3600
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(frozen=True)
class BatchError:
    """A problem of an input file; `line` counts from 1, None means the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True)
class LineResult:
    """A line of a result file: the response to one request."""

    custom_id: str
    status: int
    body: dict[str, Any]
    id: str = field(default_factory=lambda: new_id("batch_req_"))
    request_id: str = field(default_factory=lambda: new_id("req_"))

    def to_json(self) -> dict[str, Any]:
        response = {"status_code": self.status, "request_id": self.request_id, "body": self.body}
        return {"id": self.id, "custom_id": self.custom_id, "response": response, "error": None}


class Batches:
    """The endpoints below /v1/batches."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, request: Request) -> JSONResponse:
        params = schemas.read(schemas.CreateBatch, await json_body(request))
        tenant, state = tenant_of(request), self._context.state
        found = state.get("file", tenant, params.input_file_id)
        if found is None:
            raise invalid(f"No such File object: {shown(params.input_file_id)}", "input_file_id")
        if found.body["purpose"] != "batch":
            raise invalid(
                f"File '{found.id}' has purpose '{found.body['purpose']}', it must be 'batch'.",
                "input_file_id",
            )
        created = now()
        body: dict[str, Any] = {
            "id": new_id("batch_"),
            "object": "batch",
            "endpoint": params.endpoint,
            "errors": None,
            "input_file_id": params.input_file_id,
            "completion_window": params.completion_window,
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": created,
            "expires_at": created + _WINDOW_S,
            **dict.fromkeys(f"{name}_at" for name in ("in_progress", "finalizing", "completed", "failed")),
            **dict.fromkeys(f"{name}_at" for name in ("expired", "cancelling", "cancelled")),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": params.metadata,
        }
        batch = state.add("batch", tenant, body)
        state.count(f"{tenant}/batches-created")
        self._start(batch)
        return JSONResponse(batch.to_wire())

    async def index(self, request: Request) -> JSONResponse:
        return self._context.page("batch", request)

    async def retrieve(self, request: Request) -> JSONResponse:
        return JSONResponse(self._context.find("batch", request, "batch").to_wire())

    async def cancel(self, request: Request) -> JSONResponse:
        batch = self._context.find("batch", request, "batch")
        if batch.body["status"] not in _OPEN:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.body['status']}'.")
        batch = self._context.state.update(batch, status="cancelling", cancelling_at=now())
        return JSONResponse(batch.to_wire())

    def resume(self) -> None:
        """Continue the open batches of an earlier process."""
        for batch in self._context.state.list("batch", newest_first=False):
            if batch.body["status"] in _OPEN:
                self._start(batch)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, batch: StoredObject) -> None:
        task = asyncio.create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: StoredObject) -> None:
        try:
            data = self._context.state.file_path(batch.body["input_file_id"]).read_bytes()
            lines, errors = _read(data)
            if errors:
                self._fail(batch, errors)
                return
            await self._answer(batch, lines)
        except Exception:
            traceback.print_exc()
            self._fail(batch, [BatchError("server_error", "The batch failed.")])

    def _fail(self, batch: StoredObject, errors: list[BatchError]) -> None:
        found = {"object": "list", "data": [asdict(error) for error in errors]}
        self._context.state.update(batch, status="failed", failed_at=now(), errors=found)

    async def _answer(self, batch: StoredObject, lines: list[schemas.BatchLine]) -> None:
        state = self._context.state
        counts = _counts(len(lines), {})
        if batch.body["status"] == "validating":
            state.update(batch, status="in_progress", in_progress_at=now(), request_counts=counts)
        answered = state.answers(batch.id)
        groups, refused = self._groups(batch.tenant, lines)
        state.put_answers(batch.id, refused)
        for key, members in groups:
            if all(line in answered for line, _ in members):
                continue
            if self._status(batch) == "cancelling":
                break
            try:
                answers = await self._context.batcher.answer_together(key, [one for _, one in members])
            except ApiError as error:
                # Only these requests fail; the client sends them again.
                done = {line: _refusal(lines[line], error) for line, _ in members}
            else:
                done = {
                    line: _line(lines[line], conversation, answer)
                    for (line, conversation), answer in zip(members, answers, strict=True)
                }
            state.put_answers(batch.id, done)
            state.update(batch, request_counts=_counts(len(lines), state.answers(batch.id)))
        self._finish(batch, len(lines))

    def _status(self, batch: StoredObject) -> str:
        fresh = self._context.state.get("batch", batch.tenant, batch.id)
        return str((fresh or batch).body["status"])

    def _groups(
        self, tenant: str, lines: list[schemas.BatchLine]
    ) -> tuple[list[tuple[BatchKey, list[tuple[int, Conversation]]]], dict[int, dict[str, Any]]]:
        """Groups of requests for one model, longest first; and responses to invalid requests."""
        by_key: dict[BatchKey, list[tuple[int, Conversation]]] = {}
        refused: dict[int, dict[str, Any]] = {}
        for number, line in enumerate(lines):
            try:
                params = schemas.read(schemas.CreateCompletion, line.body)
                key, conversation = prepare(self._context, tenant, params)
            except ApiError as error:
                refused[number] = _refusal(line, error)
                continue
            by_key.setdefault(key, []).append((number, conversation))
        rows = self._context.batcher.batch_rows
        groups = []
        for key, members in by_key.items():
            ordered = sorted(members, key=lambda member: (-_characters(member[1]), member[0]))
            groups += [(key, ordered[start : start + rows]) for start in range(0, len(ordered), rows)]
        return groups, refused

    def _finish(self, batch: StoredObject, total: int) -> None:
        state = self._context.state
        answers = state.answers(batch.id)
        cancelled = self._status(batch) == "cancelling"
        changes: dict[str, Any] = {"request_counts": _counts(total, answers)}
        for name, wanted in (("output_file_id", False), ("error_file_id", True)):
            chosen = [answers[line] for line in sorted(answers) if _failed(answers[line]) is wanted]
            if chosen:
                data = b"".join(json.dumps(one).encode() + b"\n" for one in chosen)
                stored = state.add_file(
                    batch.tenant,
                    data,
                    filename=f"{batch.id}_{name[:6].rstrip('_')}.jsonl",
                    purpose="batch_output",
                )
                changes[name] = stored.id
        end = "cancelled" if cancelled else "completed"
        state.update(batch, status=end, finalizing_at=now(), **{f"{end}_at": now()}, **changes)


def _read(data: bytes) -> tuple[list[schemas.BatchLine], list[BatchError]]:
    """The requests of an input file, or all errors of its format."""
    lines: list[schemas.BatchLine] = []
    errors: list[BatchError] = []
    seen: set[str] = set()
    if len(data) > _LIMITS.batch_bytes:
        return [], [BatchError("file_too_large", f"The file has more than {_LIMITS.batch_bytes} bytes.")]
    for number, text in enumerate(data.splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = schemas.read(schemas.BatchLine, json.loads(text))
        except ApiError as error:
            errors.append(BatchError(error.code or "invalid_request", error.message, number))
            continue
        except (ValueError, RecursionError):
            errors.append(
                BatchError("invalid_json_line", "This line is not parseable as valid JSON.", number)
            )
            continue
        if line.custom_id in seen:
            errors.append(
                BatchError("duplicate_custom_id", "The custom_id is used on an earlier line.", number)
            )
        seen.add(line.custom_id)
        lines.append(line)
    if not lines and not errors:
        errors.append(BatchError("empty_file", "The file has no requests."))
    if len(lines) > _LIMITS.batch_requests:
        errors.append(
            BatchError("too_many_requests", f"At most {_LIMITS.batch_requests} requests are taken.")
        )
    return lines, errors[:100]


def _line(line: schemas.BatchLine, conversation: Conversation, answer: Generated) -> dict[str, Any]:
    try:
        body = completion(line.body["model"], conversation, answer)
    except ApiError as error:
        return _refusal(line, error)
    return LineResult(line.custom_id, 200, body).to_json()


def _refusal(line: schemas.BatchLine, error: ApiError) -> dict[str, Any]:
    return LineResult(line.custom_id, error.status, error.body()).to_json()


def _failed(answer: dict[str, Any]) -> bool:
    return bool(answer["response"]["status_code"] != 200)


def _counts(total: int, answers: dict[int, dict[str, Any]]) -> dict[str, int]:
    failed = sum(map(_failed, answers.values()))
    return {"total": total, "completed": len(answers) - failed, "failed": failed}


def _characters(conversation: Conversation) -> int:
    return sum(len(message["content"]) for message in conversation)
