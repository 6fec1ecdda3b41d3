"""Polls one fine-tuning job until it ends; its events become the stage's heartbeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.hosted.client import Service
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason

ENDED = ("succeeded", "failed", "cancelled")
_EVENTS_A_POLL = 50
_CODES = {
    "invalid_training_file": Reason.BAD_DATA,
    "invalid_validation_file": Reason.BAD_DATA,
    "bad_data": Reason.BAD_DATA,
    "diverged": Reason.DIVERGED,
    "out_of_memory": Reason.OUT_OF_MEMORY,
    "exceeded_quota": Reason.OVER_BUDGET,
    "server_error": Reason.NETWORK,
}


def follow(
    context: StageContext, service: Service, job_id: str, *, on_poll: Callable[[Any], None] = lambda _: None
) -> Any:
    """The job in its final state, good or bad. Raises Failure if the service fails, Stopped on SIGTERM.

    `on_poll` is called with the job after every poll of an open one.
    """
    seen: set[str] = set()
    status = ""
    while True:
        job = service.call("retrieve the job", lambda: service.client.fine_tuning.jobs.retrieve(job_id))
        page = service.call(
            "read the job's events",
            lambda: service.client.fine_tuning.jobs.list_events(job_id, limit=_EVENTS_A_POLL),
        )
        for event in reversed(page.data):
            if event.id not in seen:
                seen.add(event.id)
                _report(context, service, event)
        if job.status != status:
            status = job.status
            print(f"job {job_id}: {service.clean(str(status))}", flush=True)
        if status in ENDED:
            return job
        on_poll(job)
        service.wait(service.retry_policy.poll_s)


def job_failure(service: Service, job: Any) -> Failure | None:
    """Why a job in its final state has no model; None if it succeeded."""
    if job.status == "succeeded":
        return None
    again = "launcher retry RUN creates a new job"
    if job.status == "cancelled":
        return Failure(Reason.CANCELLED, f"job {job.id} was cancelled at the service", next_step=again)
    error = job.error
    code, message = (error.code or "", error.message or "") if error else ("", "no reason given")
    reason = _CODES.get(code, Reason.UNSUPPORTED)
    return Failure(
        reason,
        f"job {job.id} failed: {service.clean(message)}",
        next_step=again if reason is Reason.NETWORK else "",
    )


def _report(context: StageContext, service: Service, event: Any) -> None:
    """Turn a metrics event into a heartbeat, and any other event into a line of the log."""
    data = event.data if isinstance(event.data, dict) else {}
    step, total, loss = data.get("step"), data.get("total_steps"), data.get("train_loss")
    if event.type == "metrics" and isinstance(step, int) and isinstance(total, int) and total > 0:
        measures = {"loss": float(loss)} if isinstance(loss, int | float) else {}
        if isinstance(valid := data.get("valid_loss"), int | float):
            measures["validation_loss"] = float(valid)
        context.heartbeat(step, total, "step", **measures)
    else:
        print(f"service: {service.clean(str(event.message))}", flush=True)
