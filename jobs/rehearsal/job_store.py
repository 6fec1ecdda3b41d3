"""Fine-tuning jobs as the server stores them, with their events, checkpoints and models."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jobs.rehearsal.state import State, StoredObject, new_id, now
from launcher.spec.stages import TrainSettings

#: States in which the server still works on a job.
OPEN = ("validating_files", "queued", "running")
ENDED = ("succeeded", "failed", "cancelled")
#: Checkpoints of a job that stay available as models, as at the service.
_CHECKPOINTS_KEPT = 3


@dataclass(frozen=True)
class Hyperparameters:
    """As requested, with `auto` for values that the server chooses, or as chosen."""

    n_epochs: int | str = "auto"
    batch_size: int | str = "auto"
    learning_rate_multiplier: float | str = "auto"


@dataclass(frozen=True)
class JobError:
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True)
class FineTuningJob:
    """One job. The last three fields are internal: clients do not see them."""

    tenant: str
    id: str
    model: str
    training_file: str
    seed: int
    validation_file: str | None = None
    suffix: str | None = None
    metadata: dict[str, str] | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    status: str = OPEN[0]
    created_at: int = field(default_factory=now)
    finished_at: int | None = None
    fine_tuned_model: str | None = None
    result_files: tuple[str, ...] = ()
    trained_tokens: int | None = None
    error: JobError | None = None
    requested: Hyperparameters = Hyperparameters()
    #: None until the files are validated.
    settings: TrainSettings | None = None
    billed_tokens: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The stored body; keys that start with `_` are internal."""
        hyperparameters = asdict(self.hyperparameters)
        body = {
            "id": self.id,
            "object": "fine_tuning.job",
            "created_at": self.created_at,
            "finished_at": self.finished_at,
            "model": self.model,
            "fine_tuned_model": self.fine_tuned_model,
            "organization_id": f"org-{self.tenant}",
            "status": self.status,
            "training_file": self.training_file,
            "validation_file": self.validation_file,
            "result_files": list(self.result_files),
            "hyperparameters": hyperparameters,
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            "trained_tokens": self.trained_tokens,
            "error": asdict(self.error) if self.error else None,
            "user_provided_suffix": self.suffix,
            "seed": self.seed,
            "estimated_finish": None,
            "integrations": [],
            "metadata": self.metadata,
            "_asked": asdict(self.requested),
        }
        if self.settings is not None:
            body |= {
                "_settings": self.settings.model_dump(mode="json"),
                "_billed_tokens": self.billed_tokens,
            }
        return body

    def to_wire(self) -> dict[str, Any]:
        """The body that clients see."""
        return {name: value for name, value in self.to_json().items() if not name.startswith("_")}

    @classmethod
    def from_stored(cls, stored: StoredObject) -> FineTuningJob:
        body = stored.body
        settings = body.get("_settings")
        return cls(
            tenant=stored.tenant,
            id=body["id"],
            model=body["model"],
            training_file=body["training_file"],
            seed=body["seed"],
            validation_file=body["validation_file"],
            suffix=body["user_provided_suffix"],
            metadata=body["metadata"],
            hyperparameters=Hyperparameters(**body["hyperparameters"]),
            status=body["status"],
            created_at=body["created_at"],
            finished_at=body["finished_at"],
            fine_tuned_model=body["fine_tuned_model"],
            result_files=tuple(body["result_files"]),
            trained_tokens=body["trained_tokens"],
            error=JobError(**body["error"]) if body["error"] else None,
            requested=Hyperparameters(**body["_asked"]),
            settings=TrainSettings.model_validate_json(json.dumps(settings)) if settings else None,
            billed_tokens=body.get("_billed_tokens"),
        )

    @property
    def training_settings(self) -> TrainSettings:
        """Settings of a job that was validated."""
        assert self.settings is not None
        return self.settings

    @property
    def tuned_name(self) -> str:
        """Name of the model that the job produces: `ft:BASE:TENANT:SUFFIX:ID`."""
        suffix = (self.suffix or "").lower()
        kept = "".join(c for c in suffix if c.isascii() and (c.isalnum() or c in "-_"))
        return f"ft:{self.model}:{self.tenant}:{kept}:{self.id[-8:]}"


@dataclass(frozen=True)
class StepMetrics:
    """Losses of one optimizer step, as a metrics event carries them."""

    step: int
    total_steps: int
    train_loss: float | None
    valid_loss: float | None = None

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        return data if self.valid_loss is not None else {k: v for k, v in data.items() if k != "valid_loss"}

    @property
    def losses(self) -> dict[str, float]:
        values = {"train_loss": self.train_loss, "valid_loss": self.valid_loss}
        return {name: value for name, value in values.items() if value is not None}


class JobStore:
    """Reads and writes jobs in the server's state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, job: FineTuningJob) -> None:
        self._state.add("job", job.tenant, job.to_json())

    def get(self, tenant: str, job_id: str) -> FineTuningJob | None:
        stored = self._state.get("job", tenant, job_id)
        return FineTuningJob.from_stored(stored) if stored else None

    def all(
        self, *, tenant: str | None = None, newest_first: bool = True, limit: int = -1
    ) -> list[FineTuningJob]:
        found = self._state.list("job", tenant=tenant, newest_first=newest_first, limit=limit)
        return [FineTuningJob.from_stored(stored) for stored in found]

    def update(self, job: FineTuningJob, **changes: Any) -> FineTuningJob:
        """Read the job again, change these fields and store it."""
        with self._state.transaction():
            stored = self._state.get("job", job.tenant, job.id)
            changed = replace(FineTuningJob.from_stored(stored) if stored else job, **changes)
            if stored is not None:
                self._state.update(stored, **changed.to_json())
        return changed

    def fail(self, job: FineTuningJob, code: str, message: str, param: str | None = None) -> None:
        with self._state.transaction():
            self.update(job, status="failed", error=JobError(code, message, param), finished_at=now())
            self.add_event(job, message, level="error")

    def add_event(
        self,
        job: FineTuningJob,
        message: str,
        *,
        level: str = "info",
        metrics: StepMetrics | None = None,
        once: str | None = None,
    ) -> None:
        """Add an event; `once` names an event that a job has at most once, however often it is resumed."""
        name = new_id("ftevent-")
        if once is not None:
            name = f"ftevent-{hashlib.sha256(f'{job.id}/{once}'.encode()).hexdigest()[:24]}"
            if self._state.get("event", job.tenant, name) is not None:
                return
        body = {
            "id": name,
            "object": "fine_tuning.job.event",
            "created_at": now(),
            "level": level,
            "message": message,
            "type": "message" if metrics is None else "metrics",
            "data": {} if metrics is None else metrics.to_json(),
        }
        self._state.add("event", job.tenant, body, owner=job.id)

    def metrics(self, job: FineTuningJob) -> list[StepMetrics]:
        """The job's metrics events, ordered by step."""
        found = [one.body for one in self._state.list("event", owner=job.id) if one.body["type"] == "metrics"]
        return sorted((StepMetrics(**body["data"]) for body in found), key=lambda metrics: metrics.step)

    def add_checkpoint(self, job: FineTuningJob, step: int, adapter: str) -> None:
        """Make the adapter of `step` available as a model; only the newest checkpoints stay."""
        known = self._state.list("checkpoint", owner=job.id)
        if any(one.body["step_number"] == step for one in known):
            return
        model = f"{job.tuned_name}:ckpt-step-{step}"
        losses = {metrics.step: metrics.losses for metrics in self.metrics(job)}
        with self._state.transaction():
            self.add_model(job, model, adapter)
            body = {
                "id": new_id("ftckpt_"),
                "object": "fine_tuning.job.checkpoint",
                "created_at": now(),
                "fine_tuned_model_checkpoint": model,
                "fine_tuning_job_id": job.id,
                "step_number": step,
                "metrics": {"step": step, **losses.get(step, {})},
            }
            self._state.add("checkpoint", job.tenant, body, owner=job.id)
            self.add_event(job, f"Checkpoint created at step {step}")
            for old in known[_CHECKPOINTS_KEPT - 1 :]:
                self._state.remove(old)

    def add_model(self, job: FineTuningJob, name: str, adapter: str) -> None:
        """Add a model that answers with the adapter in this directory of the job."""
        if self._state.get("model", job.tenant, name) is not None:
            return
        body = {
            "id": name,
            "object": "model",
            "created": now(),
            "owned_by": f"org-{job.tenant}",
            "_base": job.model,
            "_adapter": f"jobs/{job.id}/{adapter}",
        }
        self._state.add("model", job.tenant, body, owner=job.id)
