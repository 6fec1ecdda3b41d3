"""Watches one job until it has ended: its events become the stage's heartbeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.hosted.client import Service
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason

ENDED = ("succeeded", "failed", "cancelled")
_EVENTS_A_LOOK = 50
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
    context: StageContext, service: Service, job_id: str, *, on_look: Callable[[], None] = lambda: None
) -> Any:
    """The job as it ended, well or badly. Raises Failure where the service does not answer, Stopped on SIGTERM.

    `on_look` is called after every look at the job.
    """
    seen: set[str] = set()
    status = ""
    while True:
        job = service.ask("look at the job", lambda: service.client.fine_tuning.jobs.retrieve(job_id))
        page = service.ask(
            "read the job's events",
            lambda: service.client.fine_tuning.jobs.list_events(job_id, limit=_EVENTS_A_LOOK),
        )
        for event in reversed(page.data):
            if event.id not in seen:
                seen.add(event.id)
                _say(context, service, event)
        if job.status != status:
            status = job.status
            print(f"job {job_id}: {service.clean(str(status))}", flush=True)
        if status in ENDED:
            return job
        on_look()
        service.wait(service.patience.poll_s)


def end_of(service: Service, job: Any) -> Failure | None:
    """Why an ended job left no model; None where it succeeded."""
    if job.status == "succeeded":
        return None
    again = "launcher retry RUN makes a new job"
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


def _say(context: StageContext, service: Service, event: Any) -> None:
    """A metrics event is progress; every other event is a line in the log."""
    data = event.data if isinstance(event.data, dict) else {}
    step, total, loss = data.get("step"), data.get("total_steps"), data.get("train_loss")
    if event.type == "metrics" and isinstance(step, int) and isinstance(total, int) and total > 0:
        measures = {"loss": float(loss)} if isinstance(loss, int | float) else {}
        if isinstance(valid := data.get("valid_loss"), int | float):
            measures["validation_loss"] = float(valid)
        context.heartbeat(step, total, "step", **measures)
    else:
        print(f"service: {service.clean(str(event.message))}", flush=True)
