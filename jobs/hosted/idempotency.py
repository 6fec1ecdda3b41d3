"""Uploads and jobs that are made once, whatever happens between asking and being answered.

The order is always the same: look whether it is there, note the intent, ask, note the result. After
any doubt (a timeout, a lost answer, a crash) the service is asked what it has before it is asked
for another. What identifies ours: for a file its name, which holds its digest, and its size; for
a job its metadata, which hold the stage key and the files' digest.
"""

from __future__ import annotations

import hashlib
from typing import Any

import openai

from jobs.hosted.client import Service, is_doubtful
from jobs.hosted.journal import Notes
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason

_PAGE = 100
#: How many of an account's newest objects are looked through.
_MOST_LOOKED_AT = 5_000
_DEAD = ("failed", "cancelled")


def upload(service: Service, notes: Notes, part: str, data: bytes, purpose: str = "fine-tune") -> str:
    """The id of the file that holds `data` at the service, uploaded at most once."""
    digest = hashlib.sha256(data).hexdigest()
    note = f"file-{part}-{digest[:16]}"
    if known := notes.get(note):
        return str(known["id"])
    name = f"tuneyard-{part}-{digest[:24]}.jsonl"

    def find() -> str | None:
        def look() -> str | None:
            for number, one in enumerate(
                service.client.files.list(purpose=purpose, limit=_PAGE, order="desc")
            ):
                if one.filename == name and one.bytes == len(data):
                    return one.id
                if number > _MOST_LOOKED_AT:
                    break
            return None

        return service.ask("list files", look)

    def create() -> str:
        made = service.client.files.create(
            file=(name, data),
            purpose=purpose,  # type: ignore[arg-type]
        )
        return made.id

    file_id = _once(service, notes, note, f"upload {part}", find, create)
    notes.put(note, {"id": file_id, "sha256": digest, "bytes": len(data)})
    return file_id


def job(
    service: Service, notes: Notes, identity: dict[str, str], note: dict[str, str], request: dict[str, Any]
) -> str:
    """The id of the one fine-tuning job with this identity, made of `request` where there is none.

    `note` goes into the job's metadata as well, for people.
    """
    if known := notes.get("job"):
        return str(known["id"])

    def find() -> str | None:
        found = _ours(service, identity)
        for duplicate in found[1:]:
            # Two answers to one question: the older one stays, the other must not be paid for.
            service.ask("cancel a duplicate", lambda one=duplicate: _cancel(service, one))  # type: ignore[misc]
        return found[0] if found else None

    def create() -> str:
        made = service.client.fine_tuning.jobs.create(metadata={**note, **identity}, **request).id
        # A request given up earlier may have been carried out since.
        return find() or made

    job_id = _once(service, notes, "job", "create the job", find, create)
    notes.put("job", {"id": job_id, **identity})
    return job_id


def batch(service: Service, notes: Notes, note: str, identity: dict[str, str], file_id: str) -> str:
    """The id of the one batch over `file_id` with this identity."""
    if known := notes.get(note):
        return str(known["id"])

    def find() -> str | None:
        def look() -> str | None:
            for number, one in enumerate(service.client.batches.list(limit=_PAGE)):
                if one.input_file_id == file_id and one.status not in _DEAD:
                    return one.id
                if number > _MOST_LOOKED_AT:
                    break
            return None

        return service.ask("list batches", look)

    def create() -> str:
        return service.client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=identity,
        ).id

    batch_id = _once(service, notes, note, "create the batch", find, create)
    notes.put(note, {"id": batch_id})
    return batch_id


def cancel_batch(service: Service, batch_id: str) -> None:
    """Cancel a batch whose run was cancelled; what it has answered is paid for all the same."""
    try:
        service.client.batches.cancel(batch_id)
    except openai.APIError as error:
        raise Failure(
            Reason.NETWORK,
            f"batch {batch_id} could not be cancelled: {type(error).__name__}",
            next_step="cancel it at the service: it may go on costing money",
        ) from None


def is_cancelled(context: StageContext) -> bool:
    """Whether the run was cancelled, and not only this try stopped."""
    outcome = context.store.get_json(f"runs/{context.plan.run_id}/attempts/{context.attempt}/outcome.json")
    return isinstance(outcome, dict) and outcome.get("reason") == Reason.CANCELLED.value


def _once(service: Service, notes: Notes, note: str, what: str, find: Any, create: Any) -> str:
    """What `find` finds, else what `create` makes. Raises Failure, or Stopped with the intent noted."""
    if notes.get(f"{note}-intent") is not None:
        # An earlier process asked and did not live to hear the answer.
        service.wait(service.patience.settle_s)
    for number in range(1, service.patience.tries + 1):
        if (found := find()) is not None:
            print(f"{what}: {found} is there already", flush=True)
            return str(found)
        notes.put(f"{note}-intent", {"tries": number})
        try:
            return str(create())
        except openai.APIError as error:
            last = error
            if is_doubtful(error):
                service.wait(service.patience.settle_s)
                if (found := find()) is not None:
                    print(f"{what}: the answer was lost, {found} is adopted", flush=True)
                    return str(found)
            service.bear(what, error, number)
    raise service.failure(what, last)


def _ours(service: Service, identity: dict[str, str]) -> list[str]:
    """Ids of the jobs with this identity that are alive or succeeded, oldest first."""

    def look() -> list[str]:
        found = []
        for number, one in enumerate(service.client.fine_tuning.jobs.list(limit=_PAGE)):
            metadata = one.metadata or {}
            if one.status not in _DEAD and all(metadata.get(k) == v for k, v in identity.items()):
                found.append((one.created_at, one.id))
            if number > _MOST_LOOKED_AT:
                break
        return [name for _, name in sorted(found)]

    return service.ask("list jobs", look)


def _cancel(service: Service, job_id: str) -> None:
    try:
        service.client.fine_tuning.jobs.cancel(job_id)
    except openai.BadRequestError:
        return  # it has ended already


def cancel(service: Service, job_id: str) -> None:
    """Cancel the job; one that has ended is left as it is. Raises Failure(NETWORK) where nobody answers."""
    try:
        _cancel(service, job_id)
    except openai.APIError as error:
        raise Failure(
            Reason.NETWORK,
            f"job {job_id} could not be cancelled: {type(error).__name__}",
            next_step="cancel it at the service: it may go on costing money",
        ) from None
