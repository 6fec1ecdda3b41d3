"""Runs fine-tuning jobs one after another: validation, training in a child process, the finished model.

Progress is in the database before a client can see it. After a restart the server finds its jobs there, and a
job that was running continues from its newest checkpoint.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path

from jobs.hosted import pricing, upload_checks
from jobs.methods import checkpoint, worker_reports
from jobs.methods.training_job import TrainingJob, to_json
from jobs.methods.worker_reports import CheckpointReport, FailureReport, HeartbeatReport, WorkerReport
from jobs.models.adapters import BaseReference
from jobs.rehearsal.child_process import ChildProcess
from jobs.rehearsal.job_files import metrics_csv, newest_checkpoint, row_of, write_adapter
from jobs.rehearsal.job_store import FineTuningJob, Hyperparameters, JobStore, StepMetrics
from jobs.rehearsal.recipe import Recipe, train_settings
from jobs.rehearsal.state import State, now
from jobs.tasks.rows import write_rows
from launcher.outcome import Failure
from launcher.spec.providers import embedded_provider
from launcher.store import DirectoryStore

_TRIES = 3
_DISK_RETRY_S = 1.0
_UNFINISHED = ("validating_files", "queued", "running")
_STOP_TIMEOUT_S = 60.0
_PROBLEMS_SHOWN = 20


class Trainer:
    """Trains one job at a time; the others wait in order of creation."""

    def __init__(
        self,
        state: State,
        models: dict[str, Path],
        recipe: Recipe,
        worker: tuple[str, ...],
        dropped_rows: Callable[[str], int],
    ) -> None:
        self.jobs = JobStore(state)
        self._state = state
        self._models = models
        self._recipe = recipe
        self._worker = worker
        self._dropped_rows = dropped_rows
        self._wake = asyncio.Event()
        self._child: ChildProcess | None = None
        self._training: str | None = None
        self._stopping = False
        self._validations: set[asyncio.Task[None]] = set()

    # -- called by the endpoints --------------------------------------------------------------
    def submit(self, job: FineTuningJob) -> None:
        """Validate the job's files in the background, then queue it."""
        task = asyncio.create_task(self._validate(job))
        self._validations.add(task)
        task.add_done_callback(self._validations.discard)

    def wake(self) -> None:
        self._wake.set()

    def interrupt(self, job_id: str, *, kill: bool) -> None:
        """Stop the job if it is training: kill its process, or let it save a checkpoint first."""
        if self._training == job_id and self._child is not None:
            (self._child.kill if kill else self._child.terminate)()

    # -- lifetime of the server ---------------------------------------------------------------
    async def run(self) -> None:
        """Train queued jobs until stopped."""
        for job in self.jobs.all(newest_first=False):
            if job.status == "validating_files":
                self.submit(job)
        while not self._stopping:
            job_or_none = self._next()
            if job_or_none is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await self._train(job_or_none)
            except Exception as error:
                await self._end_child()
                await self._fail_after(job_or_none, error)

    async def _end_child(self) -> None:
        """End the training process of a job that cannot be recorded."""
        if self._child is not None:
            self._child.kill()
            await self._child.wait()
        self._child, self._training = None, None

    async def _fail_after(self, job: FineTuningJob, error: Exception) -> None:
        """Record that `error` ended the job, and wait for room if the disk is full."""
        with contextlib.suppress(OSError):  # the log may be on the same full disk
            traceback.print_exception(error)
        why = type(error).__name__
        if isinstance(error, (OSError, sqlite3.OperationalError)):
            why = "the server could not write to its state directory (is its disk full?)"
        while True:
            try:
                current = self.jobs.get(job.tenant, job.id)
                if current is not None and current.status in _UNFINISHED:
                    self.jobs.fail(job, "server_error", f"The job failed: {why}.")
                return
            except (OSError, sqlite3.OperationalError):
                await asyncio.sleep(_DISK_RETRY_S)

    async def stop(self) -> None:
        """Let the running job save its progress, then end."""
        self._stopping = True
        self.wake()
        if self._child is not None:
            self._child.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), _STOP_TIMEOUT_S)
            self._child.kill()

    def _next(self) -> FineTuningJob | None:
        waiting = [job for job in self.jobs.all(newest_first=False) if job.status in ("running", "queued")]
        return min(waiting, key=lambda job: job.status != "running", default=None)

    # -- validation ---------------------------------------------------------------------------
    async def _validate(self, job: FineTuningJob) -> None:
        try:
            found = await asyncio.to_thread(self._read_files, job)
        except FileNotFoundError:
            self.jobs.fail(job, "invalid_training_file", "The job failed because a file was deleted.")
            return
        except Exception as error:
            await self._fail_after(job, error)
            return
        current = self.jobs.get(job.tenant, job.id)
        if current is None or current.status != "validating_files":
            return
        if problems := [problem for upload in found for problem in upload.errors]:
            self._refuse_files(current, problems)
        else:
            self._queue(current, *found)

    def _read_files(self, job: FineTuningJob) -> tuple[upload_checks.Upload, upload_checks.Upload]:
        training = self._state.file_path(job.training_file).read_bytes()
        name = job.validation_file
        validation = self._state.file_path(name).read_bytes() if name else b""
        return upload_checks.check(training, validation, limits=embedded_provider().limits, model=job.model)

    def _refuse_files(self, job: FineTuningJob, problems: list[upload_checks.Problem]) -> None:
        shown = "; ".join(problem.text() for problem in problems[:_PROBLEMS_SHOWN])
        hidden = len(problems) - _PROBLEMS_SHOWN
        more = f"; and {hidden} more" if hidden > 0 else ""
        param = "validation_file" if problems[0].file == "validation.jsonl" else "training_file"
        message = f"The job failed due to an invalid file. Invalid file format. {shown}{more}"
        self.jobs.fail(job, f"invalid_{param}", message, param)

    def _queue(
        self, job: FineTuningJob, training: upload_checks.Upload, validation: upload_checks.Upload
    ) -> None:
        """Replace `auto` by values, write the rows, and queue the job."""
        examples = [example for _, example in training.examples]
        examples = examples[: max(1, len(examples) - self._dropped_rows(job.tenant))]
        requested = job.requested
        epochs = (
            pricing.default_epochs(len(examples)) if requested.n_epochs == "auto" else int(requested.n_epochs)
        )
        batch = (
            pricing.auto_batch_rows(len(examples))
            if requested.batch_size == "auto"
            else int(requested.batch_size)
        )
        multiplier = (
            1.0 if requested.learning_rate_multiplier == "auto" else float(requested.learning_rate_multiplier)
        )
        data = self._state.job_directory(job.id) / "data"
        write_rows(data / "train.jsonl", map(row_of, examples))
        write_rows(data / "validation.jsonl", (row_of(example) for _, example in validation.examples))
        settings = train_settings(
            self._recipe,
            examples=len(examples),
            epochs=epochs,
            batch_rows=batch,
            multiplier=multiplier,
            seed=job.seed,
        )
        with self._state.transaction():
            self.jobs.update(
                job,
                status="queued",
                hyperparameters=Hyperparameters(epochs, batch, multiplier),
                settings=settings,
                billed_tokens=pricing.billed_tokens(examples) * epochs,
            )
            self.jobs.add_event(job, "Files validated, moving job to queued state")
        self.wake()

    # -- training -----------------------------------------------------------------------------
    async def _train(self, job: FineTuningJob) -> None:
        job = self.jobs.update(job, status="running")
        self.jobs.add_event(job, "Fine-tuning job started", once="started")
        directory = self._state.job_directory(job.id)
        shutil.rmtree(directory / "scratch", ignore_errors=True)
        (directory / "scratch").mkdir(parents=True)
        (directory / "out").mkdir(exist_ok=True)
        description = directory / "scratch" / "job.json"
        description.write_text(to_json(self._training_job(job, directory)), encoding="utf-8")
        self._training = job.id
        self._child = await ChildProcess.start([*self._worker, str(description)], directory / "worker.log")
        if self._stopping or self._status(job) != "running":
            # Paused, cancelled or stopped while the process was starting: it got no signal.
            self._child.kill()
        failure: Failure | None = None
        async for message in self._child.reports():
            report = worker_reports.from_json(message)
            if isinstance(report, FailureReport):
                failure = report.failure
            else:
                self._progress(job, report)
        code = await self._child.wait()
        self._child, self._training = None, None
        self._end(job, code, failure)

    def _status(self, job: FineTuningJob) -> str:
        return (self.jobs.get(job.tenant, job.id) or job).status

    def _training_job(self, job: FineTuningJob, directory: Path) -> TrainingJob:
        return TrainingJob(
            settings=job.training_settings,
            model=self._models[job.model],
            data=directory / "data",
            out=directory / "out",
            scratch=directory / "scratch",
            checkpoint=newest_checkpoint(directory),
            base=BaseReference(job.model),
        )

    def _progress(self, job: FineTuningJob, report: WorkerReport) -> None:
        if isinstance(report, HeartbeatReport) and report.step:
            self._add_metrics(job, report)
        elif isinstance(report, CheckpointReport):
            store = DirectoryStore(self._state.job_directory(job.id))
            checkpoint.commit(store, "checkpoints", report.directory, report.step)
            self._publish_checkpoint(job, report.step)

    def _add_metrics(self, job: FineTuningJob, report: HeartbeatReport) -> None:
        step, total, measures = report.step, report.total, report.measures
        metrics = StepMetrics(step, total, measures.get("loss"), measures.get("validation_loss"))
        text = f"Step {step}/{total}: training loss={measures.get('loss', 0):.4f}"
        if metrics.valid_loss is not None:
            text += f", validation loss={metrics.valid_loss:.4f}"
        self.jobs.add_event(job, text, metrics=metrics, once=f"step-{step}")

    def _publish_checkpoint(self, job: FineTuningJob, step: int) -> None:
        """Make the checkpoint available as a model if it ends an epoch."""
        training = job.training_settings.training
        epoch_steps = max(1, training.steps // int(job.hyperparameters.n_epochs))
        previous = step - training.checkpoint_every_steps
        if step < epoch_steps or step // epoch_steps == previous // epoch_steps:
            return
        directory = self._state.job_directory(job.id)
        self.jobs.add_checkpoint(job, step, write_adapter(directory, step, job.training_settings.lora))

    def _end(self, job: FineTuningJob, code: int, failure: Failure | None) -> None:
        current = self.jobs.get(job.tenant, job.id)
        if current is None or current.status != "running":
            return
        if self._stopping and failure is None and code != 0:
            # The server stops; this does not count as a failed try.
            return
        if code == 0:
            self._succeed(current)
        elif failure is not None:
            text = "; ".join((failure.what, *failure.problems[:_PROBLEMS_SHOWN]))
            self.jobs.fail(current, failure.reason.value.replace("-", "_"), f"The job failed: {text}")
        elif self._state.count(f"tries-{job.id}") >= _TRIES:
            self.jobs.fail(current, "server_error", "The job failed: its training process was killed.")

    def _succeed(self, job: FineTuningJob) -> None:
        result = self._state.add_file(
            job.tenant,
            base64.b64encode(metrics_csv(self.jobs.metrics(job))),
            filename="step_metrics.csv",
            purpose="fine-tune-results",
        )
        name = job.tuned_name
        with self._state.transaction():
            self.jobs.add_model(job, name, "out")
            self.jobs.add_checkpoint(job, job.training_settings.training.steps, "out")
            self.jobs.update(
                job,
                status="succeeded",
                fine_tuned_model=name,
                finished_at=now(),
                result_files=(result.id,),
                trained_tokens=job.billed_tokens,
            )
            self.jobs.add_event(job, f"New fine-tuned model created: {name}")
            self.jobs.add_event(job, "The job has successfully completed")
        directory = self._state.job_directory(job.id)
        for done in ("checkpoints", "scratch"):
            shutil.rmtree(directory / done, ignore_errors=True)
