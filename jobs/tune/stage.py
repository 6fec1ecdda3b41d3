"""Stage kind `tune`: one fine-tuning job at a hosted service, or at a rehearsal server inside the stage.

A killed stage continues with the same upload and the same job. SIGTERM leaves the job running, and the next
try continues to follow it; the job is cancelled if the run was cancelled.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

from jobs.hosted import idempotency, pricing, upload_checks
from jobs.hosted.client import Service
from jobs.hosted.journal import Journal
from jobs.hosted.spending import spending
from jobs.rehearsal.embedded import EmbeddedServer
from jobs.rehearsal.session import open_service
from jobs.runtime.jsonl import write_jsonl
from jobs.stage import StageContext, Stopped
from jobs.tune.cost import JobCost
from jobs.tune.follow import follow, job_failure
from jobs.tune.records import CurvePoint, Hyperparameters, TrainingRecord, TunedModel, UploadFacts
from launcher.costs import budget
from launcher.outcome import Failure, Reason
from launcher.spec.catalog import HostedPrice
from launcher.spec.providers import stage_provider
from launcher.spec.stages import TuneSettings
from launcher.store.runs import Attempt
from launcher.system.text import first_of

_SAVE_EVERY_S = 10.0
_PROBLEMS_SHOWN = 200
_RESULT_LIMIT_BYTES = 64 << 20


def run(context: StageContext) -> None:
    """Write `tuned.json`, `training.json` and `curve.jsonl`. Roles: `data`, and `model` for a rehearsal."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, TuneSettings)
    training, validation = (_upload(context, part) for part in ("train", "validation"))
    facts = _validate(settings, training, validation)
    print(
        f"upload: {facts.rows} examples, {facts.tokens_an_epoch} tokens an epoch, "
        f"{facts.expected_tokens} in all at {facts.epochs} epochs",
        flush=True,
    )
    with (
        open_service(context, settings, journal_name="") as (service, journal, embedded),
        spending(context, journal, rehearsed=settings.rehearsal is not None) as money,
    ):
        cost = JobCost(money, journal, _price(context, settings), facts)
        job = _succeeded_job(context, settings, service, journal, training, validation, embedded, cost)
        _write_results(context, settings, service, job, facts)
    if embedded is not None:
        embedded.copy_to(context.out / "rehearsal")


def _upload(context: StageContext, part: str) -> bytes:
    return context.input("data").path(f"upload/{part}.jsonl").read_bytes()


def _validate(settings: TuneSettings, training: bytes, validation: bytes) -> UploadFacts:
    """Facts of the upload. Raises Failure(BAD_DATA) with every problem and its line."""
    provider = stage_provider(settings.provider, rehearsed=settings.rehearsal is not None)
    found = upload_checks.check(training, validation, limits=provider.limits, model=settings.model)
    problems = [problem for upload in found for problem in upload.errors]
    if problems:
        shown = first_of([problem.text() for problem in problems], _PROBLEMS_SHOWN)
        raise Failure(Reason.BAD_DATA, "the upload would be refused", problems=tuple(shown))
    warnings = [problem for upload in found for problem in upload.problems]
    for warning in warnings[:_PROBLEMS_SHOWN]:
        print(f"warning: {warning.text()}", flush=True)
    examples = [example for _, example in found[0].examples]
    return UploadFacts(
        rows=len(examples),
        validation_rows=len(found[1].examples),
        tokens_an_epoch=pricing.billed_tokens(examples),
        epochs=pricing.default_epochs(len(examples)) if settings.epochs == "auto" else settings.epochs,
        statistics=upload_checks.statistics(examples),
        most_tokens_an_epoch=pricing.estimated_tokens(examples),
    )


def _request(context: StageContext, settings: TuneSettings, service: Service) -> dict[str, Any]:
    """The request for a job, without its files. The provider decides where hyperparameters are."""
    hyperparameters = {
        "n_epochs": settings.epochs,
        "batch_size": settings.batch_rows,
        "learning_rate_multiplier": settings.learning_rate_multiplier,
    }
    request: dict[str, Any] = {
        "model": settings.model,
        "seed": settings.seed,
        "suffix": f"tuneyard-{context.stage.key[:8]}",
    }
    if service.provider.hyperparameters == "top-level":
        return {**request, "hyperparameters": hyperparameters}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return {**request, "method": method}


def _succeeded_job(
    context: StageContext,
    settings: TuneSettings,
    service: Service,
    journal: Journal,
    training: bytes,
    validation: bytes,
    embedded: EmbeddedServer | None,
    cost: JobCost,
) -> Any:
    """The job of this stage, created or adopted, after it succeeded. `cost` is reserved before it is created."""
    request = _request(context, settings, service)
    request["training_file"] = idempotency.upload(service, journal, "train", training)
    if validation:
        request["validation_file"] = idempotency.upload(service, journal, "validation", validation)
    files = hashlib.sha256(training + b"\0" + validation).hexdigest()
    identity = {"tuneyard_stage": context.stage.key[:32], "tuneyard_files": files[:32]}
    cost.reserve()
    labels = {"tuneyard_run": context.plan.run_id}
    job_id = idempotency.job(service, journal, identity, labels, request, cost.add_duplicate)
    saved_at = time.monotonic()

    def on_poll(job: Any) -> None:
        nonlocal saved_at
        if (excess := cost.excess(job)) is not None:
            idempotency.cancel(service, job_id)
            raise excess
        if embedded is not None and time.monotonic() - saved_at > _SAVE_EVERY_S:
            embedded.save()
            saved_at = time.monotonic()

    if embedded is not None:
        embedded.save()
    try:
        job = follow(context, service, job_id, on_poll=on_poll)
    except Stopped:
        if embedded is None and idempotency.is_cancelled(context):
            idempotency.cancel(service, job_id)
            print(f"job {job_id}: cancelled with its run", flush=True)
        raise
    if (failure := job_failure(service, job)) is not None:
        cost.settle_failed(job)
        # The next try creates another job.
        journal.put("job", None)
        raise failure
    cost.settle(job)
    return job


def _price(context: StageContext, settings: TuneSettings) -> HostedPrice | None:
    """Price of the training; None for a rehearsal, which costs nothing, and without a price."""
    attempt = Attempt(context.store, context.plan.run_id, context.attempt)
    return None if settings.rehearsal is not None else budget.prices_of(attempt).training(settings.model)


def _write_results(
    context: StageContext, settings: TuneSettings, service: Service, job: Any, facts: UploadFacts
) -> None:
    """Write the stage's output: the tuned model's name, the curve, tokens billed and tokens expected."""
    if not job.fine_tuned_model:
        raise Failure(Reason.NETWORK, f"job {job.id} succeeded and names no tuned model")
    curve = _curve(service, job)
    billed = None if job.trained_tokens is None else max(0, job.trained_tokens)
    difference = None if billed is None else billed - facts.expected_tokens
    if difference:
        print(
            f"warning: {billed} tokens were trained, {facts.expected_tokens} were sent: "
            "a service may drop rows silently",
            flush=True,
        )
    hyperparameters = Hyperparameters(
        n_epochs=getattr(job.hyperparameters, "n_epochs", None),
        batch_size=getattr(job.hyperparameters, "batch_size", None),
        learning_rate_multiplier=getattr(job.hyperparameters, "learning_rate_multiplier", None),
    )
    tuned = TunedModel(
        model=job.fine_tuned_model,
        job=job.id,
        base=settings.model,
        hyperparameters=hyperparameters,
        billed_tokens=billed,
        expected_tokens=facts.expected_tokens,
    )
    trained_tokens = facts.expected_tokens if billed is None else billed
    last = curve[-1] if curve else None
    training = TrainingRecord(
        rows=facts.rows,
        validation_rows=facts.validation_rows,
        expected_tokens=facts.expected_tokens,
        statistics=facts.statistics,
        steps=last.step if last else None,
        epochs=hyperparameters.n_epochs,
        trained_tokens=trained_tokens,
        tokens=trained_tokens,
        billed_tokens=billed,
        billed_less_expected_tokens=difference,
        loss=last.loss if last else None,
        validation_loss=last.validation_loss if last else None,
        rehearsed_by=settings.rehearsal.stand_in if settings.rehearsal else None,
    )
    _write(context.out / "tuned.json", tuned.to_json())
    _write(context.out / "training.json", training.to_json())
    write_jsonl(context.out / "curve.jsonl", [point.to_json() for point in curve])
    context.meta["trained_tokens"] = trained_tokens


def _curve(service: Service, job: Any) -> list[CurvePoint]:
    """Steps of the result file; none if there is no readable result file."""
    if not job.result_files:
        return []
    data = service.read_file("fetch the result file", str(job.result_files[0]), _RESULT_LIMIT_BYTES)
    try:
        text = base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        text = data.decode("utf-8", errors="replace")  # some services send plain CSV
    points = []
    for row in csv.DictReader(io.StringIO(text)):
        try:
            validation_loss = float(row["valid_loss"]) if row.get("valid_loss") else None
            points.append(CurvePoint(int(row["step"]), float(row["train_loss"]), validation_loss))
        except (KeyError, TypeError, ValueError):
            continue
    return points


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
