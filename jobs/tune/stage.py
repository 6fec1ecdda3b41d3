"""Stage kind `tune`: one fine-tuning job at a hosted service, or at a rehearsal server inside the stage.

Killed at any moment it comes back to the same upload and the same job. SIGTERM leaves the job
running (the next try goes on watching), unless the run was cancelled: then so is the job.
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
from jobs.hosted.journal import Notes
from jobs.jsonl import write_jsonl
from jobs.rehearsal.embedded import Embedded
from jobs.rehearsal.session import service_of
from jobs.stage import StageContext, Stopped
from jobs.tune.follow import end_of, follow
from launcher.outcome import Failure, Reason
from launcher.spec.stages import TuneSettings
from launcher.system.text import first_of

_SAVE_EVERY_S = 10.0
_PROBLEMS_SHOWN = 200
_MOST_RESULT_BYTES = 64 << 20


def run(context: StageContext) -> None:
    """Roles: `data`, for a rehearsal `model`. Leaves `tuned.json`, `training.json`, `curve.jsonl`."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, TuneSettings)
    training, validation = (_upload(context, part) for part in ("train", "validation"))
    facts = _validate(settings, training, validation)
    print(
        f"upload: {facts['rows']} examples, {facts['tokens_an_epoch']} tokens an epoch, "
        f"{facts['expected_tokens']} in all at {facts['epochs']} epochs",
        flush=True,
    )
    with service_of(context, settings, notes_name="") as (service, notes, embedded):
        job = _one_job(context, settings, service, notes, training, validation, embedded)
        _results(context, settings, service, job, facts)
    if embedded is not None:
        embedded.copy_to(context.out / "rehearsal")


def _upload(context: StageContext, part: str) -> bytes:
    return context.input("data").path(f"upload/{part}.jsonl").read_bytes()


def _validate(settings: TuneSettings, training: bytes, validation: bytes) -> dict[str, Any]:
    """Facts of the upload. Raises Failure(BAD_DATA) with every problem and its line."""
    found = upload_checks.check(training, validation, limit=upload_checks.limit_tokens(settings.model))
    problems = [problem for upload in found for problem in upload.errors]
    if problems:
        shown = first_of([problem.text() for problem in problems], _PROBLEMS_SHOWN)
        raise Failure(Reason.BAD_DATA, "the upload would be refused", problems=tuple(shown))
    warnings = [problem for upload in found for problem in upload.problems]
    for warning in warnings[:_PROBLEMS_SHOWN]:
        print(f"warning: {warning.text()}", flush=True)
    examples = [example for _, example in found[0].examples]
    epochs = pricing.default_epochs(len(examples)) if settings.epochs == "auto" else settings.epochs
    tokens = pricing.billed_tokens(examples)
    return {
        "rows": len(examples),
        "validation_rows": len(found[1].examples),
        "warnings": len(warnings),
        "tokens_an_epoch": tokens,
        "estimated_tokens_an_epoch": pricing.estimated_tokens(examples),
        "epochs": epochs,
        "expected_tokens": tokens * epochs,
        "statistics": upload_checks.statistics(examples),
    }


def _one_job(
    context: StageContext,
    settings: TuneSettings,
    service: Service,
    notes: Notes,
    training: bytes,
    validation: bytes,
    embedded: Embedded | None,
) -> Any:
    """The job of this stage, made or found, as it succeeded."""
    request: dict[str, Any] = {
        "model": settings.model,
        "training_file": idempotency.upload(service, notes, "train", training),
        "seed": settings.seed,
        "suffix": f"tuneyard-{context.stage.key[:8]}",
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": settings.epochs,
                    "batch_size": settings.batch_rows,
                    "learning_rate_multiplier": settings.learning_rate_multiplier,
                }
            },
        },
    }
    if validation:
        request["validation_file"] = idempotency.upload(service, notes, "validation", validation)
    files = hashlib.sha256(training + b"\0" + validation).hexdigest()
    identity = {"tuneyard_stage": context.stage.key[:32], "tuneyard_files": files[:32]}
    job_id = idempotency.job(service, notes, identity, {"tuneyard_run": context.plan.run_id}, request)
    saved_at = time.monotonic()

    def save_now_and_then() -> None:
        nonlocal saved_at
        if embedded is not None and time.monotonic() - saved_at > _SAVE_EVERY_S:
            embedded.save()
            saved_at = time.monotonic()

    if embedded is not None:
        embedded.save()
    try:
        job = follow(context, service, job_id, on_look=save_now_and_then)
    except Stopped:
        if embedded is None and idempotency.is_cancelled(context):
            idempotency.cancel(service, job_id)
            print(f"job {job_id}: cancelled with its run", flush=True)
        raise
    if (failure := end_of(service, job)) is not None:
        # A dead job is not ours any more: the next try makes another.
        notes.put("job", None)
        raise failure
    return job


def _results(
    context: StageContext, settings: TuneSettings, service: Service, job: Any, facts: dict[str, Any]
) -> None:
    """Write what the job left: the tuned model's name, the curve, tokens billed against tokens expected."""
    if not job.fine_tuned_model:
        raise Failure(Reason.NETWORK, f"job {job.id} succeeded and names no tuned model")
    curve = _curve(service, job)
    billed = None if job.trained_tokens is None else max(0, job.trained_tokens)
    difference = None if billed is None else billed - facts["expected_tokens"]
    if difference:
        print(
            f"warning: {billed} tokens were trained, {facts['expected_tokens']} were sent: "
            "a service may leave rows out without saying so",
            flush=True,
        )
    hyperparameters = {
        name: getattr(job.hyperparameters, name, None)
        for name in ("n_epochs", "batch_size", "learning_rate_multiplier")
    }
    tuned = {
        "model": job.fine_tuned_model,
        "job": job.id,
        "base": settings.model,
        "hyperparameters": hyperparameters,
        "billed_tokens": billed,
        "expected_tokens": facts["expected_tokens"],
    }
    _write(context.out / "tuned.json", tuned)
    last = curve[-1] if curve else {}
    training = {
        **{name: facts[name] for name in ("rows", "validation_rows", "expected_tokens", "statistics")},
        "steps": last.get("step"),
        "epochs": hyperparameters["n_epochs"],
        "trained_tokens": facts["expected_tokens"] if billed is None else billed,
        "tokens": facts["expected_tokens"] if billed is None else billed,
        "billed_tokens": billed,
        "billed_less_expected_tokens": difference,
        "loss": last.get("loss"),
        "validation_loss": last.get("validation_loss"),
        "rehearsed_by": settings.rehearsal.stand_in if settings.rehearsal else None,
    }
    _write(context.out / "training.json", training)
    write_jsonl(context.out / "curve.jsonl", curve)
    context.meta["trained_tokens"] = training["trained_tokens"]


def _curve(service: Service, job: Any) -> list[dict[str, Any]]:
    """The result file's steps as `curve.jsonl` has them; none where there is no readable result file."""
    if not job.result_files:
        return []
    data = service.read_file("fetch the result file", str(job.result_files[0]), _MOST_RESULT_BYTES)
    try:
        text = base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        text = data.decode("utf-8", errors="replace")  # some services send the CSV as it is
    points = []
    for row in csv.DictReader(io.StringIO(text)):
        try:
            point: dict[str, Any] = {"step": int(row["step"]), "loss": float(row["train_loss"])}
            if row.get("valid_loss"):
                point["validation_loss"] = float(row["valid_loss"])
        except (KeyError, TypeError, ValueError):
            continue
        points.append(point)
    return points


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
