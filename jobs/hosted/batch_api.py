"""Answers through the Batch API: all missing rows in one file of requests, at the batch price.

A batch is created at most once, like a job (see `idempotency`). Rows that failed for a transient reason are
sent again in a further batch; each round has its own file and journal entries.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from jobs.hosted import idempotency
from jobs.hosted.chat import Answer, ChatRequest
from jobs.hosted.client import Service
from jobs.hosted.journal import Journal
from jobs.hosted.row_ledger import RowLedger
from jobs.stage import StageContext, Stopped
from launcher.outcome import Failure, Reason
from launcher.spec.providers import Limits

_RESULT_LIMIT_BYTES = 1 << 30
_ROUNDS = 3
_ENDED = ("completed", "failed", "expired", "cancelled")
_SAVE_EVERY_S = 10.0


@dataclass(frozen=True)
class Round:
    """Journal entry of one batch: its rows, and how many rows were missing before it."""

    rows: list[int]
    missing: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def answer_in_batches(
    context: StageContext,
    service: Service,
    journal: Journal,
    ledger: RowLedger,
    requests: list[ChatRequest],
    *,
    save: Callable[[], None] | None,
) -> None:
    """Answer every row that the ledger lacks, round by round.

    `save` stores a snapshot of an embedded rehearsal server every few seconds; None for other services.
    """
    number = 0
    while missing := [row for row in range(len(requests)) if row not in ledger.answers]:
        number += 1
        # A batch that was created and not read yet keeps its rows.
        planned = _round(journal, number)
        if planned is None:
            if _no_progress(journal, number, len(missing)):
                raise Failure(
                    Reason.NETWORK,
                    f"{len(missing)} rows were not answered in {_ROUNDS} batches",
                    next_step="launcher retry RUN",
                )
            planned = Round(_fitting(missing, requests, service.provider.limits, ledger), len(missing))
            ledger.spending.reserve(sum(ledger.most_usd(requests[row]) for row in planned.rows))
            journal.put(f"round-{number}", planned.to_json())
        else:
            unanswered = [row for row in planned.rows if row not in ledger.answers]
            ledger.spending.resume(sum(ledger.most_usd(requests[row]) for row in unanswered))
        if any(row not in ledger.answers for row in planned.rows):
            _run(context, service, journal, ledger, requests, planned.rows, number, save)
        context.heartbeat(len(ledger.answers), len(requests), "rows")


def _round(journal: Journal, number: int) -> Round | None:
    document = journal.get(f"round-{number}")
    return Round(**document) if document else None


def _no_progress(journal: Journal, number: int, missing: int) -> bool:
    """Whether the last rounds answered no row."""
    earlier = [_round(journal, one) for one in range(max(1, number - _ROUNDS), number)]
    return len(earlier) == _ROUNDS and all(one is not None and one.missing == missing for one in earlier)


def _fitting(missing: list[int], requests: list[ChatRequest], limits: Limits, ledger: RowLedger) -> list[int]:
    """The first of the missing rows: as many as fit into one batch and into the allowance, but at least one."""
    size, usd = 0, 0.0
    rows: list[int] = []
    for row in missing[: limits.batch_requests]:
        size += len(_line(row, requests[row]))
        usd += ledger.most_usd(requests[row])
        if size > limits.batch_bytes or (rows and not ledger.spending.fits(usd)):
            break
        rows.append(row)
    return rows


def _line(row: int, request: ChatRequest) -> bytes:
    line = {"custom_id": f"row-{row}", "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**line, "body": request.to_json()}).encode() + b"\n"


def _run(
    context: StageContext,
    service: Service,
    journal: Journal,
    ledger: RowLedger,
    requests: list[ChatRequest],
    rows: list[int],
    number: int,
    save: Callable[[], None] | None,
) -> None:
    """One round: create or adopt its batch, wait for its end, store its answers."""
    data = b"".join(_line(row, requests[row]) for row in rows)
    file_id = idempotency.upload(service, journal, f"batch{number}", data, purpose="batch")
    identity = {"tuneyard_stage": context.stage.key[:32], "tuneyard_round": str(number)}
    batch_id = idempotency.batch(service, journal, f"batch-{number}", identity, file_id)
    if save is not None:
        save()
    saved_at = started = time.monotonic()
    known = len(ledger.answers)
    try:
        while True:
            batch = service.call("retrieve the batch", lambda: service.client.batches.retrieve(batch_id))
            if batch.status in _ENDED:
                break
            done = batch.request_counts.completed if batch.request_counts else 0
            context.heartbeat(min(known + done, len(requests)), len(requests), "rows")
            if save is not None and time.monotonic() - saved_at > _SAVE_EVERY_S:
                save()
                saved_at = time.monotonic()
            service.wait(service.retry_policy.poll_s)
    except Stopped:
        if save is None and idempotency.is_cancelled(context):
            idempotency.cancel_batch(service, batch_id)
        raise
    latency_s = (time.monotonic() - started) / max(1, len(rows))
    _read(service, ledger, batch, {row: requests[row] for row in rows}, latency_s)


def _read(
    service: Service, ledger: RowLedger, batch: Any, rows: dict[int, ChatRequest], latency_s: float
) -> None:
    """Store every answer. Raises Failure if the batch, or a row for a permanent reason, was refused."""
    if batch.status == "failed":
        found = batch.errors.data if batch.errors and batch.errors.data else []
        problems = tuple(service.clean(f"line {one.line}: {one.message}") for one in found[:50])
        raise Failure(Reason.BAD_DATA, f"batch {batch.id} was refused", problems=problems)
    most_usd = {row: ledger.most_usd(request) for row, request in rows.items() if row not in ledger.answers}
    wanted = {f"row-{row}": row for row in rows}
    refused = []
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        data = service.read_file("fetch answers", file_id, _RESULT_LIMIT_BYTES)
        for line in data.splitlines():
            row, response = _result(line, wanted)
            if row is None or row not in most_usd:
                continue
            status = int(response.get("status_code") or 0)
            if status == 200:
                ledger.add(row, Answer.from_completion(response.get("body"), latency_s), most_usd.pop(row))
                continue
            # An error is not billed.
            ledger.spending.settle(most_usd.pop(row), 0.0)
            if 400 <= status < 500 and status not in (408, 409, 429):
                message = ((response.get("body") or {}).get("error") or {}).get("message", "no message")
                refused.append(service.clean(f"row {row}: {message}"))
    unaccounted_usd = sum(most_usd.values())
    ledger.spending.settle(unaccounted_usd, 0.0)
    if batch.status == "completed" and unaccounted_usd:
        ledger.spending.lose(unaccounted_usd, f"{len(most_usd)} rows of batch {batch.id} without a result")
    if refused:
        raise Failure(Reason.BAD_DATA, f"{len(refused)} rows were refused", problems=tuple(refused[:200]))
    if batch.status == "cancelled" and any(row not in ledger.answers for row in rows):
        raise Failure(Reason.CANCELLED, f"batch {batch.id} was cancelled at the service")


def _result(line: bytes, wanted: dict[str, int]) -> tuple[int | None, dict[str, Any]]:
    """Row and response of a line in a result file; no row for a line that is not of this batch."""
    try:
        value = json.loads(line)
        return wanted.get(value["custom_id"]), value.get("response") or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}
