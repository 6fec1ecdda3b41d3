"""Carries out fine-tuning jobs one after another: validation, training in a child process, the finished model.

What a job has reached is in the state's database before anybody is told. A server that comes
back finds its jobs there: one that was running continues from its newest checkpoint.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.hosted import pricing, upload_checks
from jobs.methods import checkpoint
from jobs.methods.training_job import TrainingJob, to_json
from jobs.models.adapters import BaseReference
from jobs.rehearsal.child import Child
from jobs.rehearsal.job_results import job_losses, metrics_csv, model_name, newest_checkpoint, row_of
from jobs.rehearsal.recipe import Recipe, train_settings
from jobs.rehearsal.state import State, Stored, new_id, now
from jobs.tasks.rows import write_rows
from launcher.outcome import Failure
from launcher.spec.providers import embedded_provider
from launcher.spec.stages import TrainSettings
from launcher.store import DirectoryStore

OPEN = ("validating_files", "queued", "running")
ENDED = ("succeeded", "failed", "cancelled")
_TRIES = 3
_STOP_TIMEOUT_S = 60.0
#: Checkpoints that stay usable as models, as the service keeps them.
_CHECKPOINTS_KEPT = 3


class Trainer:
    """One job trains at a time; the others wait in the order in which they were made."""

    def __init__(
        self,
        state: State,
        models: dict[str, Path],
        recipe: Recipe,
        worker: tuple[str, ...],
        dropped_rows: Callable[[str], int],
    ) -> None:
        self._state = state
        self._models = models
        self._recipe = recipe
        self._worker = worker
        self._dropped_rows = dropped_rows
        self._wake = asyncio.Event()
        self._child: Child | None = None
        self._training: str | None = None
        self._stopping = False
        self._checking: set[asyncio.Task[None]] = set()

    # -- what the endpoints call ------------------------------------------------------------
    def submitted(self, job: Stored) -> None:
        """A new job, or one found at start, is to be validated and then trained."""
        task = asyncio.create_task(self._validate(job))
        self._checking.add(task)
        task.add_done_callback(self._checking.discard)

    def wake(self) -> None:
        self._wake.set()

    def interrupt(self, job_id: str, *, for_good: bool) -> None:
        """The job is no longer to run: `for_good` kills it, else it saves a checkpoint first."""
        if self._training == job_id and self._child is not None:
            (self._child.kill if for_good else self._child.ask_to_stop)()

    async def stop(self) -> None:
        """Save the running job's progress and end."""
        self._stopping = True
        self.wake()
        if self._child is not None:
            self._child.ask_to_stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.ended(), _STOP_TIMEOUT_S)
            self._child.kill()

    async def run(self) -> None:
        """Until stopped."""
        for job in reversed(self._state.list("job")):
            if job.body["status"] == "validating_files":
                self.submitted(job)
        while not self._stopping:
            job_or_none = self._next()
            if job_or_none is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await self._train(job_or_none)
            except Exception as error:
                traceback.print_exc()
                self._fail(job_or_none, "server_error", f"The job failed: {type(error).__name__}.")

    def _next(self) -> Stored | None:
        jobs = self._state.list("job", newest_first=False)
        waiting = [job for job in jobs if job.body["status"] in ("running", "queued")]
        return min(waiting, key=lambda job: (job.body["status"] != "running", job.seq), default=None)

    # -- validation -------------------------------------------------------------------------
    async def _validate(self, job: Stored) -> None:
        try:
            found = await asyncio.to_thread(self._read_files, job)
        except FileNotFoundError:
            self._fail(job, "invalid_training_file", "The job failed because a file was deleted.")
            return
        except Exception as error:
            traceback.print_exc()
            self._fail(job, "server_error", f"The job failed: {type(error).__name__}.")
            return
        fresh = self._state.get("job", job.tenant, job.id)
        if fresh is None or fresh.body["status"] != "validating_files":
            return
        problems = [problem for upload in found for problem in upload.errors]
        if problems:
            shown = "; ".join(problem.text() for problem in problems[:20])
            more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
            code = (
                "invalid_validation_file"
                if problems[0].file == "validation.jsonl"
                else "invalid_training_file"
            )
            self._fail(
                fresh,
                code,
                f"The job failed due to an invalid file. Invalid file format. {shown}{more}",
                param=code.removeprefix("invalid_"),
            )
            return
        self._queue(fresh, *found)

    def _read_files(self, job: Stored) -> tuple[upload_checks.Upload, upload_checks.Upload]:
        training = self._state.file_path(job.body["training_file"]).read_bytes()
        name = job.body["validation_file"]
        validation = self._state.file_path(name).read_bytes() if name else b""
        return upload_checks.check(
            training, validation, limits=embedded_provider().limits, model=job.body["model"]
        )

    def _queue(self, job: Stored, training: upload_checks.Upload, validation: upload_checks.Upload) -> None:
        """Decide what was left to us, write the rows, and queue the job."""
        examples = [example for _, example in training.examples]
        examples = examples[: max(1, len(examples) - self._dropped_rows(job.tenant))]
        asked = job.body["_asked"]
        epochs, batch, multiplier = (
            asked[name] for name in ("n_epochs", "batch_size", "learning_rate_multiplier")
        )
        epochs = pricing.default_epochs(len(examples)) if epochs == "auto" else epochs
        batch = pricing.auto_batch_rows(len(examples)) if batch == "auto" else batch
        multiplier = 1.0 if multiplier == "auto" else multiplier
        data = self._state.job_directory(job.id) / "data"
        write_rows(data / "train.jsonl", map(row_of, examples))
        write_rows(data / "validation.jsonl", (row_of(example) for _, example in validation.examples))
        decided = {"n_epochs": epochs, "batch_size": batch, "learning_rate_multiplier": multiplier}
        settings = train_settings(
            self._recipe,
            examples=len(examples),
            epochs=epochs,
            batch_rows=batch,
            multiplier=multiplier,
            seed=job.body["seed"],
        )
        with self._state.transaction():
            self._state.update(
                job,
                status="queued",
                hyperparameters=decided,
                method={"type": "supervised", "supervised": {"hyperparameters": decided}},
                _settings=settings.model_dump(mode="json"),
                _billed_tokens=pricing.billed_tokens(examples) * epochs,
            )
            self.event(job, "Files validated, moving job to queued state")
        self.wake()

    # -- training ---------------------------------------------------------------------------
    async def _train(self, job: Stored) -> None:
        job = self._state.update(job, status="running")
        self.event(job, "Fine-tuning job started", mark="started")
        directory = self._state.job_directory(job.id)
        shutil.rmtree(directory / "scratch", ignore_errors=True)
        (directory / "scratch").mkdir(parents=True)
        (directory / "out").mkdir(exist_ok=True)
        description = directory / "scratch" / "job.json"
        description.write_text(to_json(self._engine_job(job, directory)), encoding="utf-8")
        self._training = job.id
        self._child = await Child.start([*self._worker, str(description)], directory / "worker.log")
        if self._stopping or self._status(job) != "running":
            # Paused, cancelled or stopped while the process was being made: nobody has told it.
            self._child.kill()
        failure: Failure | None = None
        async for report in self._child.reports():
            if report["kind"] == "failure":
                failure = Failure.from_json(report["failure"])
            else:
                self._progress(job, report)
        code = await self._child.ended()
        self._child, self._training = None, None
        self._end(job, code, failure)

    def _status(self, job: Stored) -> str:
        fresh = self._state.get("job", job.tenant, job.id)
        return str((fresh or job).body["status"])

    def _engine_job(self, job: Stored, directory: Path) -> TrainingJob:
        return TrainingJob(
            settings=TrainSettings.model_validate_json(json.dumps(job.body["_settings"])),
            model=self._models[job.body["model"]],
            data=directory / "data",
            out=directory / "out",
            scratch=directory / "scratch",
            checkpoint=newest_checkpoint(directory),
            base=BaseReference(job.body["model"]),
        )

    def _progress(self, job: Stored, report: dict[str, Any]) -> None:
        if report["kind"] == "heartbeat" and report["step"]:
            self._metrics(job, report)
        elif report["kind"] == "checkpoint":
            directory = self._state.job_directory(job.id)
            store = DirectoryStore(directory)
            checkpoint.commit(store, "checkpoints", Path(report["directory"]), report["step"])
            self._usable_checkpoint(job, report["step"])

    def _metrics(self, job: Stored, report: dict[str, Any]) -> None:
        step, total, measures = report["step"], report["total"], report["measures"]
        data = {"step": step, "total_steps": total, "train_loss": measures.get("loss")}
        text = f"Step {step}/{total}: training loss={measures.get('loss', 0):.4f}"
        if "validation_loss" in measures:
            data["valid_loss"] = measures["validation_loss"]
            text += f", validation loss={measures['validation_loss']:.4f}"
        self.event(job, text, kind="metrics", data=data, mark=f"step-{step}")

    def _usable_checkpoint(self, job: Stored, step: int) -> None:
        """At the end of an epoch, make the checkpoint a model that answers; the oldest go."""
        settings = job.body["_settings"]["training"]
        each = max(1, settings["steps"] // job.body["hyperparameters"]["n_epochs"])
        if step < each or step // each == (step - settings["checkpoint_every_steps"]) // each:
            return
        directory = self._state.job_directory(job.id)
        adapter = directory / f"adapter-{step:06d}"
        adapter.mkdir(exist_ok=True)
        shutil.copyfile(
            directory / "checkpoints" / checkpoint.name(step) / "adapter.safetensors",
            adapter / "adapter_model.safetensors",
        )
        lora = job.body["_settings"]["lora"]
        config = {"lora_alpha": lora["alpha"], "r": lora["r"], "peft_type": "LORA"}
        (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        self._add_checkpoint(job, step, adapter.name)

    def _add_checkpoint(self, job: Stored, step: int, adapter: str) -> None:
        known = self._state.list("checkpoint", owner=job.id)
        if any(one.body["step_number"] == step for one in known):
            return
        model = f"{model_name(job)}:ckpt-step-{step}"
        losses = job_losses(self._state, job)
        with self._state.transaction():
            self._add_model(job, model, adapter)
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
            self.event(job, f"Checkpoint created at step {step}")
            for old in known[_CHECKPOINTS_KEPT - 1 :]:
                self._state.remove(old)

    def _end(self, job: Stored, code: int, failure: Failure | None) -> None:
        fresh = self._state.get("job", job.tenant, job.id)
        if fresh is None or fresh.body["status"] != "running":
            return
        if self._stopping and failure is None and code != 0:
            # Stopped with its server, perhaps before it could save anything: no try of its own.
            return
        if code == 0:
            self._succeed(fresh)
        elif failure is not None:
            text = "; ".join((failure.what, *failure.problems[:20]))
            self._fail(fresh, failure.reason.value.replace("-", "_"), f"The job failed: {text}")
        elif self._state.count(f"tries-{job.id}") >= _TRIES:
            self._fail(fresh, "server_error", "The job failed: its training process was killed.")

    def _succeed(self, job: Stored) -> None:
        result = self._state.add_file(
            job.tenant,
            base64.b64encode(metrics_csv(job_losses(self._state, job))),
            filename="step_metrics.csv",
            purpose="fine-tune-results",
        )
        name = model_name(job)
        with self._state.transaction():
            self._add_model(job, name, "out")
            self._add_checkpoint(job, job.body["_settings"]["training"]["steps"], "out")
            self._state.update(
                job,
                status="succeeded",
                fine_tuned_model=name,
                finished_at=now(),
                result_files=[result.id],
                trained_tokens=job.body["_billed_tokens"],
                estimated_finish=None,
            )
            self.event(job, f"New fine-tuned model created: {name}")
            self.event(job, "The job has successfully completed")
        directory = self._state.job_directory(job.id)
        for done in ("checkpoints", "scratch"):
            shutil.rmtree(directory / done, ignore_errors=True)

    def _add_model(self, job: Stored, name: str, adapter: str) -> None:
        body = {
            "id": name,
            "object": "model",
            "created": now(),
            "owned_by": f"org-{job.tenant}",
            "_base": job.body["model"],
            "_adapter": f"jobs/{job.id}/{adapter}",
        }
        if self._state.get("model", job.tenant, name) is None:
            self._state.add("model", job.tenant, body, owner=job.id)

    def _fail(self, job: Stored, code: str, message: str, param: str | None = None) -> None:
        with self._state.transaction():
            error = {"code": code, "message": message, "param": param}
            self._state.update(job, status="failed", error=error, finished_at=now(), estimated_finish=None)
            self.event(job, message, level="error")

    def event(
        self,
        job: Stored,
        message: str,
        *,
        level: str = "info",
        kind: str = "message",
        data: dict[str, Any] | None = None,
        mark: str | None = None,
    ) -> None:
        """Say something on the job's record; what has a `mark` is said once, however often the job continues."""
        name = new_id("ftevent-")
        if mark is not None:
            name = f"ftevent-{hashlib.sha256(f'{job.id}/{mark}'.encode()).hexdigest()[:24]}"
            if self._state.get("event", job.tenant, name) is not None:
                return
        body = {
            "id": name,
            "object": "fine_tuning.job.event",
            "created_at": now(),
            "level": level,
            "message": message,
            "type": kind,
            "data": data or {},
        }
        self._state.add("event", job.tenant, body, owner=job.id)
