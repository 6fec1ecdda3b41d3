"""The Batch API: all missing rows as one file of requests, at the price of a batch.

Made once, like a job: intent noted first, adopted after doubt. What fails for a passing reason is
asked again in a further batch; each round has its own file and its own note.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from jobs.hosted import idempotency
from jobs.hosted.client import Service
from jobs.hosted.completions import answer_of, prompt_tokens
from jobs.hosted.journal import Notes
from jobs.hosted.row_ledger import Ledger
from jobs.stage import StageContext, Stopped
from launcher.outcome import Failure, Reason

_MOST_REQUESTS = 50_000
_MOST_BYTES = 200 << 20
_MOST_ANSWER_BYTES = 1 << 30
_ROUNDS = 3
_ENDED = ("completed", "failed", "expired", "cancelled")
_SAVE_EVERY_S = 10.0


def answer_in_batches(
    context: StageContext,
    service: Service,
    notes: Notes,
    ledger: Ledger,
    requests: list[dict[str, Any]],
    *,
    save: Callable[[], None] | None,
) -> None:
    """Answer every row that the ledger lacks, round by round.

    `save` stores a snapshot of a rehearsal server now and then; None for a service that is not ours.
    """
    number = 0
    while missing := [row for row in range(len(requests)) if row not in ledger.answers]:
        number += 1
        # A batch that was asked for and not read yet keeps the rows it was made of.
        rows = (notes.get(f"round-{number}") or {}).get("rows")
        if rows is None:
            if _fruitless(notes, number, len(missing)):
                raise Failure(
                    Reason.NETWORK,
                    f"{len(missing)} rows were not answered in {_ROUNDS} batches",
                    next_step="launcher retry RUN",
                )
            rows = _fitting(missing, requests)
            ledger.check_budget(
                sum(prompt_tokens(requests[row]) for row in rows),
                sum(requests[row]["max_tokens"] for row in rows),
            )
            notes.put(f"round-{number}", {"rows": rows, "missing": len(missing)})
        if any(row not in ledger.answers for row in rows):
            _round(context, service, notes, ledger, requests, rows, number, save)
        context.heartbeat(len(ledger.answers), len(requests), "rows")


def _fruitless(notes: Notes, number: int, missing: int) -> bool:
    """Whether the last rounds brought nothing."""
    earlier = [notes.get(f"round-{one}") or {} for one in range(max(1, number - _ROUNDS), number)]
    return len(earlier) == _ROUNDS and all(one.get("missing") == missing for one in earlier)


def _fitting(missing: list[int], requests: list[dict[str, Any]]) -> list[int]:
    """The first of the missing rows, as many as one batch takes."""
    size, rows = 0, []
    for row in missing[:_MOST_REQUESTS]:
        size += len(_line(row, requests[row]))
        if size > _MOST_BYTES:
            break
        rows.append(row)
    return rows


def _line(row: int, request: dict[str, Any]) -> bytes:
    value = {"custom_id": f"row-{row}", "method": "POST", "url": "/v1/chat/completions", "body": request}
    return json.dumps(value).encode() + b"\n"


def _round(
    context: StageContext,
    service: Service,
    notes: Notes,
    ledger: Ledger,
    requests: list[dict[str, Any]],
    rows: list[int],
    number: int,
    save: Callable[[], None] | None,
) -> None:
    data = b"".join(_line(row, requests[row]) for row in rows)
    file_id = idempotency.upload(service, notes, f"batch{number}", data, purpose="batch")
    identity = {"tuneyard_stage": context.stage.key[:32], "tuneyard_round": str(number)}
    batch_id = idempotency.batch(service, notes, f"batch-{number}", identity, file_id)
    if save is not None:
        save()
    saved_at = started = time.monotonic()
    known = len(ledger.answers)
    try:
        while True:
            batch = service.ask("look at the batch", lambda: service.client.batches.retrieve(batch_id))
            if batch.status in _ENDED:
                break
            done = batch.request_counts.completed if batch.request_counts else 0
            context.heartbeat(min(known + done, len(requests)), len(requests), "rows")
            if save is not None and time.monotonic() - saved_at > _SAVE_EVERY_S:
                save()
                saved_at = time.monotonic()
            service.wait(service.patience.poll_s)
    except Stopped:
        if save is None and idempotency.is_cancelled(context):
            idempotency.cancel_batch(service, batch_id)
        raise
    latency_s = (time.monotonic() - started) / max(1, len(rows))
    _read(service, ledger, batch, rows, latency_s)


def _read(service: Service, ledger: Ledger, batch: Any, rows: list[int], latency_s: float) -> None:
    """Note every answer. Raises Failure where a row, or the whole batch, was refused for good."""
    if batch.status == "failed":
        found = batch.errors.data if batch.errors and batch.errors.data else []
        problems = tuple(service.clean(f"line {one.line}: {one.message}") for one in found[:50])
        raise Failure(Reason.BAD_DATA, f"batch {batch.id} was refused", problems=problems)
    wanted = {f"row-{row}": row for row in rows}
    refused = []
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        data = service.read_file("fetch answers", file_id, _MOST_ANSWER_BYTES)
        for line in data.splitlines():
            row, response = _result(line, wanted)
            if row is None or row in ledger.answers:
                continue
            if response.get("status_code") == 200:
                ledger.note(row, answer_of(response.get("body"), latency_s))
            elif 400 <= int(response.get("status_code") or 0) < 500 and response["status_code"] not in (
                408,
                409,
                429,
            ):
                message = ((response.get("body") or {}).get("error") or {}).get("message", "no message")
                refused.append(service.clean(f"row {row}: {message}"))
    if refused:
        raise Failure(Reason.BAD_DATA, f"{len(refused)} rows were refused", problems=tuple(refused[:200]))
    if batch.status == "cancelled" and any(row not in ledger.answers for row in rows):
        raise Failure(Reason.CANCELLED, f"batch {batch.id} was cancelled at the service")


def _result(line: bytes, wanted: dict[str, int]) -> tuple[int | None, dict[str, Any]]:
    """The row that a line of a result file is about, and its response; None for what is not ours."""
    try:
        value = json.loads(line)
        return wanted.get(value["custom_id"]), value.get("response") or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}
