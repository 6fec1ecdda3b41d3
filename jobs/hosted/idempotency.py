"""Uploads, fine-tuning jobs and batches with an idempotency key of our own: each is created at most once.

The order is: look for an existing object, record the intent, send the request, record the result. After an
ambiguous end (timeout, lost response, crash) the service's list is searched before the next request. A file
is identified by its name, which contains its digest, and its size; a job by its metadata, which contain
the stage key and the digest of its files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import openai

from jobs.hosted.client import Service, is_ambiguous
from jobs.hosted.journal import Created, Intent, Journal, created
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason

Listed = TypeVar("Listed")
_PAGE = 100
#: How many of an account's newest objects are searched.
_SEARCH_LIMIT = 5_000
_DEAD = ("failed", "cancelled")


def upload(service: Service, journal: Journal, part: str, data: bytes, purpose: str = "fine-tune") -> str:
    """Id of the file with `data` at the service, uploaded at most once."""
    digest = hashlib.sha256(data).hexdigest()
    entry = f"file-{part}-{digest[:16]}"
    if known := created(journal, entry):
        return known.id
    name = f"tuneyard-{part}-{digest[:24]}.jsonl"

    def find() -> str | None:
        def search() -> str | None:
            files = service.client.files.list(purpose=purpose, limit=_PAGE, order="desc")
            matches = (one.id for one in _newest(files) if one.filename == name and one.bytes == len(data))
            return next(matches, None)

        return service.call("list files", search)

    def create() -> str:
        return service.client.files.create(
            file=(name, data),
            purpose=purpose,  # type: ignore[arg-type]
        ).id

    file_id = _find_or_create(service, journal, entry, f"upload {part}", find, create)
    journal.put(entry, Created(file_id, {"sha256": digest, "bytes": len(data)}).to_json())
    return file_id


def job(
    service: Service,
    journal: Journal,
    identity: dict[str, str],
    labels: dict[str, str],
    request: dict[str, Any],
    on_duplicate: Callable[[str], None] = lambda _: None,
) -> str:
    """Id of the one fine-tuning job with this identity, created from `request` if there is none.

    `labels` become metadata as well; they do not identify the job. `on_duplicate` is called with the id of a job
    that two requests created and that was cancelled.
    """
    if known := created(journal, "job"):
        return known.id

    def find() -> str | None:
        found = _live_jobs(service, identity)
        for duplicate in found[1:]:
            # Two requests were carried out: keep the older job, and pay for no other.
            service.call("cancel a duplicate", lambda one=duplicate: _cancel(service, one))  # type: ignore[misc]
            on_duplicate(duplicate)
        return found[0] if found else None

    def create() -> str:
        new = service.client.fine_tuning.jobs.create(metadata={**labels, **identity}, **request).id
        # An earlier request may have been carried out in the meantime.
        return find() or new

    job_id = _find_or_create(service, journal, "job", "create the job", find, create)
    journal.put("job", Created(job_id, dict(identity)).to_json())
    return job_id


def batch(service: Service, journal: Journal, entry: str, identity: dict[str, str], file_id: str) -> str:
    """Id of the one batch over `file_id`, created with `identity` as metadata if there is none."""
    if known := created(journal, entry):
        return known.id

    def find() -> str | None:
        def search() -> str | None:
            batches = service.client.batches.list(limit=_PAGE)
            matches = (
                one.id for one in _newest(batches) if one.input_file_id == file_id and one.status not in _DEAD
            )
            return next(matches, None)

        return service.call("list batches", search)

    def create() -> str:
        return service.client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=identity,
        ).id

    batch_id = _find_or_create(service, journal, entry, "create the batch", find, create)
    journal.put(entry, Created(batch_id).to_json())
    return batch_id


def cancel(service: Service, job_id: str) -> None:
    """Cancel the job unless it has ended. Raises Failure(NETWORK) if the request fails."""
    try:
        _cancel(service, job_id)
    except openai.APIError as error:
        raise _not_cancelled(f"job {job_id}", error) from None


def cancel_batch(service: Service, batch_id: str) -> None:
    """Cancel a batch of a cancelled run; its finished answers are billed. Raises Failure(NETWORK)."""
    try:
        service.client.batches.cancel(batch_id)
    except openai.APIError as error:
        raise _not_cancelled(f"batch {batch_id}", error) from None


def is_cancelled(context: StageContext) -> bool:
    """Whether the run was cancelled, as opposed to this try being stopped."""
    outcome = context.store.get_json(f"runs/{context.plan.run_id}/attempts/{context.attempt}/outcome.json")
    return isinstance(outcome, dict) and outcome.get("reason") == Reason.CANCELLED.value


def _not_cancelled(what: str, error: openai.APIError) -> Failure:
    return Failure(
        Reason.NETWORK,
        f"{what} could not be cancelled: {type(error).__name__}",
        next_step="cancel it at the service: it may go on costing money",
    )


def _find_or_create(
    service: Service,
    journal: Journal,
    entry: str,
    what: str,
    find: Callable[[], str | None],
    create: Callable[[], str],
) -> str:
    """Result of `find`, else of `create`. Raises Failure, or Stopped after the intent was recorded."""
    policy = service.retry_policy
    if journal.get(f"{entry}-intent") is not None:
        # An earlier process sent the request and ended before the response.
        service.wait(policy.settle_s)
    for number in range(1, policy.tries + 1):
        if (found := find()) is not None:
            print(f"{what}: {found} exists already", flush=True)
            return found
        journal.put(f"{entry}-intent", Intent(number).to_json())
        service.check_lease()
        try:
            return create()
        except openai.APIError as error:
            last = error
            if is_ambiguous(error):
                service.wait(policy.settle_s)
                if (found := find()) is not None:
                    print(f"{what}: the response was lost, {found} is adopted", flush=True)
                    return found
            service.retry_or_raise(what, error, number)
    raise service.failure(what, last)


def _newest(listed: Iterable[Listed]) -> Iterable[Listed]:
    """The newest objects of a list that the SDK pages through."""
    for number, one in enumerate(listed):
        yield one
        if number > _SEARCH_LIMIT:
            return


def _live_jobs(service: Service, identity: dict[str, str]) -> list[str]:
    """Ids of the jobs with this identity that have not failed, oldest first."""

    def search() -> list[str]:
        found = []
        for one in _newest(service.client.fine_tuning.jobs.list(limit=_PAGE)):
            metadata = one.metadata or {}
            if one.status not in _DEAD and all(metadata.get(k) == v for k, v in identity.items()):
                found.append((one.created_at, one.id))
        return [name for _, name in sorted(found)]

    return service.call("list jobs", search)


def _cancel(service: Service, job_id: str) -> None:
    try:
        service.client.fine_tuning.jobs.cancel(job_id)
    except openai.BadRequestError:
        return  # it has ended already
