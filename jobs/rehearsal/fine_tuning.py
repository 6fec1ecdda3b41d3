"""/v1/fine_tuning/jobs: create, list, follow, cancel, pause, resume."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse

from jobs.rehearsal import schemas
from jobs.rehearsal.errors import invalid
from jobs.rehearsal.service import Service, json_body, shown, tenant
from jobs.rehearsal.state import new_id, now
from jobs.rehearsal.training import ENDED, OPEN


class FineTuning:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, request: Request) -> JSONResponse:
        """A new job, every time: like the service, this one knows no idempotency key."""
        asked = schemas.read(schemas.CreateJob, await json_body(request))
        if asked.method is not None and asked.method.type != "supervised":
            raise invalid(
                f"Method {asked.method.type} is not available for model {shown(asked.model)}.", "method"
            )
        if asked.model not in self._service.models:
            raise invalid(
                f"Model {shown(asked.model)} is not available for fine-tuning or does not exist.",
                "model",
                "model_not_available",
            )
        who = tenant(request)
        self._check_file(who, asked.training_file, "training_file")
        if asked.validation_file is not None:
            self._check_file(who, asked.validation_file, "validation_file")
        state, trainer = self._service.state, self._service.trainer
        chosen = asked.chosen.model_dump()
        job_id = new_id("ftjob-")
        body = {
            "id": job_id,
            "object": "fine_tuning.job",
            "created_at": now(),
            "finished_at": None,
            "model": asked.model,
            "fine_tuned_model": None,
            "organization_id": f"org-{who}",
            "status": "validating_files",
            "training_file": asked.training_file,
            "validation_file": asked.validation_file,
            "result_files": [],
            "hyperparameters": chosen,
            "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}},
            "trained_tokens": None,
            "error": None,
            "user_provided_suffix": asked.suffix,
            "seed": asked.seed if asked.seed is not None else secrets.randbelow(2**31),
            "estimated_finish": None,
            "integrations": [],
            "metadata": asked.metadata,
            "_asked": chosen,
        }
        with state.transaction():
            job = state.add("job", who, body)
            state.count(f"{who}/jobs-created")
            trainer.event(job, f"Created fine-tuning job: {job_id}")
            trainer.event(job, f"Validating training file: {asked.training_file}")
        trainer.submitted(job)
        return JSONResponse(job.wire())

    def _check_file(self, who: str, name: str, param: str) -> None:
        found = self._service.state.get("file", who, name)
        if found is None:
            raise invalid(f"invalid {param}: {shown(name)}", param, "invalid_file")
        if found.body["purpose"] != "fine-tune":
            raise invalid(
                f"File '{found.id}' has purpose '{found.body['purpose']}', it must be 'fine-tune'.",
                param,
                "invalid_file_purpose",
            )

    async def index(self, request: Request) -> JSONResponse:
        return self._service.page("job", request)

    async def retrieve(self, request: Request) -> JSONResponse:
        return JSONResponse(self._service.find("job", request, "fine-tuning job").wire())

    async def events(self, request: Request) -> JSONResponse:
        job = self._service.find("job", request, "fine-tuning job")
        return self._service.page("event", request, owner=job.id)

    async def checkpoints(self, request: Request) -> JSONResponse:
        job = self._service.find("job", request, "fine-tuning job")
        return self._service.page("checkpoint", request, owner=job.id)

    async def cancel(self, request: Request) -> JSONResponse:
        job = self._service.find("job", request, "fine-tuning job")
        status = job.body["status"]
        if status in ENDED:
            raise invalid(f"Job has already completed: it has status '{status}'.", code="invalid_job_state")
        with self._service.state.transaction():
            job = self._service.state.update(
                job, status="cancelled", finished_at=now(), estimated_finish=None
            )
            self._service.trainer.event(job, "Fine-tuning job cancelled")
        self._service.trainer.interrupt(job.id, for_good=True)
        return JSONResponse(job.wire())

    async def pause(self, request: Request) -> JSONResponse:
        job = self._service.find("job", request, "fine-tuning job")
        if job.body["status"] not in OPEN[1:]:
            raise invalid(
                f"Job cannot be paused: it has status '{job.body['status']}'.", code="invalid_job_state"
            )
        with self._service.state.transaction():
            job = self._service.state.update(job, status="paused")
            self._service.trainer.event(job, "Fine-tuning job paused")
        self._service.trainer.interrupt(job.id, for_good=False)
        return JSONResponse(job.wire())

    async def resume(self, request: Request) -> JSONResponse:
        job = self._service.find("job", request, "fine-tuning job")
        if job.body["status"] != "paused":
            raise invalid(
                f"Job cannot be resumed: it has status '{job.body['status']}'.", code="invalid_job_state"
            )
        with self._service.state.transaction():
            job = self._service.state.update(job, status="queued")
            self._service.trainer.event(job, "Fine-tuning job resumed")
        self._service.trainer.wake()
        return JSONResponse(job.wire())
