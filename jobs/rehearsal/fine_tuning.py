"""/v1/fine_tuning/jobs: create, list, retrieve, events, checkpoints, cancel, pause, resume."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse

from jobs.rehearsal import schemas
from jobs.rehearsal.errors import invalid
from jobs.rehearsal.job_store import ENDED, OPEN, FineTuningJob, Hyperparameters, JobStore
from jobs.rehearsal.server_context import ServerContext, json_body, shown, tenant_of
from jobs.rehearsal.state import new_id, now


class FineTuning:
    """The endpoints below /v1/fine_tuning/jobs."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    @property
    def _jobs(self) -> JobStore:
        return self._context.trainer.jobs

    async def create(self, request: Request) -> JSONResponse:
        """Create a job on every call: the protocol has no idempotency key."""
        params = schemas.read(schemas.CreateJob, await json_body(request))
        if params.method is not None and params.method.type != "supervised":
            raise invalid(
                f"Method {params.method.type} is not available for model {shown(params.model)}.", "method"
            )
        if params.model not in self._context.models:
            raise invalid(
                f"Model {shown(params.model)} is not available for fine-tuning or does not exist.",
                "model",
                "model_not_available",
            )
        tenant = tenant_of(request)
        self._check_file(tenant, params.training_file, "training_file")
        if params.validation_file is not None:
            self._check_file(tenant, params.validation_file, "validation_file")
        requested = Hyperparameters(**params.chosen.model_dump())
        job = FineTuningJob(
            tenant=tenant,
            id=new_id("ftjob-"),
            model=params.model,
            training_file=params.training_file,
            validation_file=params.validation_file,
            seed=params.seed if params.seed is not None else secrets.randbelow(2**31),
            suffix=params.suffix,
            metadata=params.metadata,
            hyperparameters=requested,
            requested=requested,
        )
        with self._context.state.transaction():
            self._jobs.add(job)
            self._context.state.count(f"{tenant}/jobs-created")
            self._jobs.add_event(job, f"Created fine-tuning job: {job.id}")
            self._jobs.add_event(job, f"Validating training file: {params.training_file}")
        self._context.trainer.submit(job)
        return JSONResponse(job.to_wire())

    def _check_file(self, tenant: str, name: str, param: str) -> None:
        found = self._context.state.get("file", tenant, name)
        if found is None:
            raise invalid(f"invalid {param}: {shown(name)}", param, "invalid_file")
        if found.body["purpose"] != "fine-tune":
            raise invalid(
                f"File '{found.id}' has purpose '{found.body['purpose']}', it must be 'fine-tune'.",
                param,
                "invalid_file_purpose",
            )

    def _find(self, request: Request) -> FineTuningJob:
        return FineTuningJob.from_stored(self._context.find("job", request, "fine-tuning job"))

    async def index(self, request: Request) -> JSONResponse:
        return self._context.page("job", request)

    async def retrieve(self, request: Request) -> JSONResponse:
        return JSONResponse(self._find(request).to_wire())

    async def events(self, request: Request) -> JSONResponse:
        return self._context.page("event", request, owner=self._find(request).id)

    async def checkpoints(self, request: Request) -> JSONResponse:
        return self._context.page("checkpoint", request, owner=self._find(request).id)

    async def cancel(self, request: Request) -> JSONResponse:
        job = self._find(request)
        if job.status in ENDED:
            raise invalid(
                f"Job has already completed: it has status '{job.status}'.", code="invalid_job_state"
            )
        with self._context.state.transaction():
            job = self._jobs.update(job, status="cancelled", finished_at=now())
            self._jobs.add_event(job, "Fine-tuning job cancelled")
        self._context.trainer.interrupt(job.id, kill=True)
        return JSONResponse(job.to_wire())

    async def pause(self, request: Request) -> JSONResponse:
        job = self._find(request)
        if job.status not in OPEN[1:]:
            raise invalid(f"Job cannot be paused: it has status '{job.status}'.", code="invalid_job_state")
        with self._context.state.transaction():
            job = self._jobs.update(job, status="paused")
            self._jobs.add_event(job, "Fine-tuning job paused")
        self._context.trainer.interrupt(job.id, kill=False)
        return JSONResponse(job.to_wire())

    async def resume(self, request: Request) -> JSONResponse:
        job = self._find(request)
        if job.status != "paused":
            raise invalid(f"Job cannot be resumed: it has status '{job.status}'.", code="invalid_job_state")
        with self._context.state.transaction():
            job = self._jobs.update(job, status="queued")
            self._jobs.add_event(job, "Fine-tuning job resumed")
        self._context.trainer.wake()
        return JSONResponse(job.to_wire())
