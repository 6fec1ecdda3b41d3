"""Answers of a hosted model to every test row: one by one within its rate limits, or through the Batch API.

What was answered is noted row by row, so that a killed stage asks for nothing twice that it heard.
Dollars are counted from `usage`; the stage stops before it would spend more than is left.
"""

from __future__ import annotations

import json
from typing import Any

from jobs.hosted.batch_api import answer_in_batches
from jobs.hosted.completions import answer_row_by_row
from jobs.hosted.row_ledger import Ledger
from jobs.jsonl import write_jsonl
from jobs.rehearsal.session import service_of
from jobs.stage import StageContext
from jobs.tasks.rows import Row, read_rows
from launcher.costs import budget
from launcher.outcome import Failure, Reason
from launcher.spec.stages import HostedPredictSettings
from launcher.store.runs import Attempt


def run(context: StageContext, settings: HostedPredictSettings) -> None:
    """Write `predictions.jsonl` in the order of `test.jsonl`, and `prediction.json`."""
    data = context.input("data")
    rows = read_rows(data.path("test.jsonl"))
    if not rows:
        raise Failure(Reason.BAD_DATA, "there are no test rows to answer")
    shown = read_rows(data.path("train.jsonl"))[: settings.shots] if settings.shots else []
    if len(shown) < settings.shots:
        raise Failure(Reason.BAD_DATA, f"{settings.shots} shots asked for, {len(shown)} training rows found")
    model = _model(context, settings)
    requests = [_request(settings, model, shown, row) for row in rows]
    tuned = context.input("tuned").directory() / "rehearsal" if context.has_input("tuned") else None
    with service_of(context, settings, notes_name="predict", first=tuned) as (service, notes, embedded):
        ledger = Ledger(notes, *_money(context, settings))
        ledger.recall(len(rows))
        context.meta["resumed_rows"] = len(ledger.answers)
        context.heartbeat(len(ledger.answers), len(rows), "rows")
        if settings.batch:
            answer_in_batches(
                context,
                service,
                notes,
                ledger,
                requests,
                save=embedded.save if embedded is not None else None,
            )
        else:
            answer_row_by_row(context, service, ledger, requests)
    answers = [{"id": row.id, **ledger.answers[number]} for number, row in enumerate(rows)]
    write_jsonl(context.out / "predictions.jsonl", answers)
    totals = {
        "rows": len(answers),
        "prompt_tokens": sum(answer["prompt_tokens"] for answer in answers),
        "answer_tokens": sum(answer["answer_tokens"] for answer in answers),
        "finished": sum(answer["finish"] == "stop" for answer in answers),
        "engine": "rehearsal" if settings.rehearsal else "openai",
        "batch": settings.batch,
        "shots": settings.shots,
    }
    (context.out / "prediction.json").write_text(json.dumps(totals, indent=2, sort_keys=True) + "\n")
    context.meta["prompt_tokens"] = totals["prompt_tokens"]
    context.meta["answer_tokens"] = totals["answer_tokens"]


def _model(context: StageContext, settings: HostedPredictSettings) -> str:
    """The name that answers: the tuned model's, or the hosted model as it is."""
    if not context.has_input("tuned"):
        return settings.model
    return str(json.loads(context.input("tuned").path("tuned.json").read_bytes())["model"])


def _request(settings: HostedPredictSettings, model: str, shown: list[Row], row: Row) -> dict[str, Any]:
    """The body of one chat completion: the shots as earlier turns, then the row's own messages."""
    messages = [dict(message) for shot in shown for message in shot.messages]
    return {
        "model": model,
        "messages": [*messages, *row.prompt_messages],
        "max_tokens": settings.max_new_tokens,
        "temperature": 0.0,
    }


def _money(context: StageContext, settings: HostedPredictSettings) -> tuple[Any, float | None]:
    """The rate of answers, and what may be spent on them; a rehearsal spends nothing."""
    if settings.rehearsal is not None:
        return None, None
    attempt = Attempt(context.store, context.plan.run_id, context.attempt)
    rate = budget.prices_of(attempt).answering(
        settings.model, tuned=context.has_input("tuned"), batch=settings.batch
    )
    return rate, budget.remaining_usd(context.plan, context.store, attempt)
