"""Answers of a hosted model to every test row: single requests within its rate limits, or the Batch API.

Each answer is stored when it arrives, and a killed stage requests only the missing ones. Dollars are computed
from `usage`; the stage ends before a request that could exceed the budget.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from jobs.hosted.batch_api import answer_in_batches
from jobs.hosted.chat import ChatRequest
from jobs.hosted.completions import answer_row_by_row, most_in_flight_usd
from jobs.hosted.row_ledger import RowLedger
from jobs.hosted.spending import spending
from jobs.rehearsal.session import open_service
from jobs.runtime.jsonl import write_jsonl
from jobs.stage import StageContext
from jobs.tasks.rows import Row, read_rows
from launcher.costs import budget
from launcher.outcome import Failure, Reason
from launcher.spec.catalog import Rate
from launcher.spec.providers import stage_provider
from launcher.spec.stages import HostedPredictSettings
from launcher.store.runs import Attempt


@dataclass(frozen=True)
class PredictionTotals:
    """`prediction.json` of a hosted contender. `engine` is the provider; `finished` counts untruncated answers."""

    rows: int
    prompt_tokens: int
    answer_tokens: int
    finished: int
    engine: str
    batch: bool
    shots: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
    rehearsed = settings.rehearsal is not None
    with (
        open_service(context, settings, journal_name="predict", initial=tuned) as (
            service,
            journal,
            embedded,
        ),
        spending(context, journal, rehearsed=rehearsed) as money,
    ):
        ledger = RowLedger(journal, None if rehearsed else _rate(context, settings), money)
        ledger.load(len(rows))
        money.begin(0.0 if settings.batch else most_in_flight_usd(ledger, requests))
        context.meta["resumed_rows"] = len(ledger.answers)
        context.heartbeat(len(ledger.answers), len(rows), "rows")
        if settings.batch:
            answer_in_batches(
                context,
                service,
                journal,
                ledger,
                requests,
                save=embedded.save if embedded is not None else None,
            )
        else:
            answer_row_by_row(context, service, ledger, requests)
    answers = [ledger.answers[number] for number in range(len(rows))]
    write_jsonl(
        context.out / "predictions.jsonl",
        [{"id": row.id, **answer.to_json()} for row, answer in zip(rows, answers, strict=True)],
    )
    totals = PredictionTotals(
        rows=len(answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        answer_tokens=sum(answer.answer_tokens for answer in answers),
        finished=sum(answer.finish == "stop" for answer in answers),
        engine=stage_provider(settings.provider, rehearsed=settings.rehearsal is not None).name,
        batch=settings.batch,
        shots=settings.shots,
    )
    (context.out / "prediction.json").write_text(
        json.dumps(totals.to_json(), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    context.meta["prompt_tokens"] = totals.prompt_tokens
    context.meta["answer_tokens"] = totals.answer_tokens


def _model(context: StageContext, settings: HostedPredictSettings) -> str:
    """Name of the tuned model, or of the untuned hosted model."""
    if not context.has_input("tuned"):
        return settings.model
    return str(json.loads(context.input("tuned").path("tuned.json").read_bytes())["model"])


def _request(settings: HostedPredictSettings, model: str, shown: list[Row], row: Row) -> ChatRequest:
    """The shots as earlier turns, then the messages of the row."""
    shots = (message for shot in shown for message in shot.messages)
    return ChatRequest(model, (*shots, *row.prompt_messages), settings.max_new_tokens)


def _rate(context: StageContext, settings: HostedPredictSettings) -> Rate | None:
    """Price of the answers; None if there is none."""
    attempt = Attempt(context.store, context.plan.run_id, context.attempt)
    tuned = context.has_input("tuned")
    return budget.prices_of(attempt).answering(settings.model, tuned=tuned, batch=settings.batch)
