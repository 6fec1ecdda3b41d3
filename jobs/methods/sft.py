"""The training loop, the same for one worker and many: steps, evaluation, checkpoints, the finished adapter.

Not in here: how workers are started (workers.py), what a step's micro-batches are
(microbatches.py, order.py), DeepSpeed (engine.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.methods import checkpoint
from jobs.methods.checkpoint import Checkpoint, Progress
from jobs.methods.engine import Engine, join, partitioned_loading
from jobs.methods.microbatches import Microbatch, microbatches
from jobs.methods.sampler import rows_of_step
from jobs.methods.schedule import learning_rate
from jobs.methods.throughput import Throughput
from jobs.models import adapters, loading
from jobs.models.examples import Example, Tokenised, tokenise
from jobs.stage import write_jsonl
from jobs.tasks.rows import read_rows
from launcher.outcome import Failure, Reason
from launcher.spec.stages import TrainSettings


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to know; the same for all but the ranks."""

    settings: TrainSettings
    model: Path  # directories of verified files
    data: Path
    out: Path
    scratch: Path
    checkpoint: Path | None  # where to continue, or None to begin
    base: dict[str, str]  # which model the adapter belongs to, for its config
    rank: int = 0
    #: Among the workers of its machine.
    local_rank: int = 0
    #: Where workers of several nodes meet, as tcp://host:port; None where all are on this machine.
    rendezvous: str | None = None

    @property
    def workers(self) -> int:
        return self.settings.processes


class Reporter(Protocol):
    """Where the first worker says what happens; others say nothing."""

    @property
    def stop_requested(self) -> bool: ...

    def heartbeat(self, step: int, total: int, measures: dict[str, float]) -> None: ...

    def checkpoint(self, directory: Path, step: int) -> None:
        """Commit the checkpoint in `directory`, consuming it."""
        ...

    def facts(self, measured: dict[str, Any]) -> None:
        """Measured facts for the receipt."""
        ...


class StoppedAtStep(Exception):
    """Training stopped because it was asked to; the checkpoint is handed over."""


def train(job: Job, reporter: Reporter) -> None:
    """Train and leave the outputs in `job.out`. Raises StoppedAtStep, Failure(BAD_DATA | DIVERGED | …)."""
    loading.prepare(max(1, job.settings.threads // job.workers), job.settings.device)
    tokenizer = loading.load_tokenizer(job.model)
    training_part = _part(job, tokenizer, "train")
    validation_part = _part(job, tokenizer, "validation")
    if not training_part.examples:
        raise Failure(
            Reason.BAD_DATA,
            f"no training row has at most {_limit_tokens(job.settings)} tokens"
            if training_part.too_long_rows
            else "there are no training rows",
            next_step="raise training.max_length_tokens (and micro_batch_tokens), or give shorter rows",
        )
    if job.rank == 0:
        _say_what_is_trained(training_part, validation_part)
    rendezvous = job.rendezvous or f"file://{job.scratch / 'rendezvous'}"
    join(job.rank, job.local_rank, job.workers, rendezvous, job.settings.device)
    run = _Run(job, reporter, training_part, validation_part)
    run.steps()
    run.finish()


def _limit_tokens(settings: TrainSettings) -> int:
    """A row must fit into a micro-batch whole, so the smaller of the two bounds counts."""
    return min(settings.training.max_length_tokens, settings.training.micro_batch_tokens)


def _part(job: Job, tokenizer: Any, part: str) -> Tokenised:
    settings = job.settings
    return tokenise(
        read_rows(job.data / f"{part}.jsonl"),
        tokenizer,
        style=settings.prompt,
        loss=settings.training.loss,
        limit_tokens=_limit_tokens(settings),
    )


def _say_what_is_trained(training_part: Tokenised, validation_part: Tokenised) -> None:
    for name, part in (("training", training_part), ("validation", validation_part)):
        learnt = sum(example.learnt_tokens for example in part.examples)
        left_out = f"; {part.too_long_rows} rows too long, left out" if part.too_long_rows else ""
        print(
            f"{name}: {len(part.examples)} rows, {part.tokens} tokens, {learnt} learnt{left_out}", flush=True
        )


class _Run:
    """One worker's training, from the newest checkpoint to the finished adapter."""

    def __init__(self, job: Job, reporter: Reporter, training: Tokenised, validation: Tokenised) -> None:
        self.job = job
        self.settings = job.settings
        self.training = job.settings.training
        self.reporter = reporter
        self.part = training
        self.validation = validation
        resumed = checkpoint.read(job.checkpoint) if job.checkpoint else None
        self.engine, self.parameters = _build_engine(job, resumed)
        self.progress = resumed.progress if resumed else Progress()
        self.throughput = Throughput(self.settings.device, job.workers, self.parameters)
        if resumed:
            self.engine.restore_moments(resumed.moments, resumed.progress.step)
            if job.rank == 0:
                print(f"continuing after step {resumed.progress.step}", flush=True)

    def steps(self) -> None:
        """Every step that is left, each ending in a consistent state."""
        total = self.training.steps
        if self.job.rank == 0:
            self.reporter.heartbeat(self.progress.step, total, {})
        while self.progress.step < total:
            stop = self._step(self.progress.step + 1)
            step = self.progress.step
            if step < total and (stop or step % self.training.checkpoint_every_steps == 0):
                self._checkpoint()
            if stop and step < total:
                raise StoppedAtStep

    def _step(self, step: int) -> bool:
        """One update; returns whether any worker was asked to stop."""
        started = time.monotonic()
        numbers = rows_of_step(self.settings.seed, step, self.training.batch_rows, len(self.part.examples))
        examples = [self.part.examples[number] for number in numbers]
        learnt = sum(example.learnt_tokens for example in examples)
        sums = []
        for index, batch in enumerate(self._batches(examples)):
            _seed_dropout(self.settings.seed, step, index * self.job.workers + self.job.rank)
            sums.append(self.engine.accumulate(batch, learnt))
        loss_sum, stops = self.engine.total(
            math.fsum(float(value) for value in sums), float(self.reporter.stop_requested)
        )
        loss = loss_sum / learnt
        if not math.isfinite(loss):
            # Before the update: what is not a number must not reach the weights.
            raise Failure(Reason.DIVERGED, f"the loss is {loss} at step {step}", where=f"step {step}")
        rate = learning_rate(self.training, step)
        self.engine.update(rate)
        self._record(step, loss, rate, examples, learnt, time.monotonic() - started)
        return bool(stops)

    def _record(
        self, step: int, loss: float, rate: float, examples: list[Example], learnt: int, seconds: float
    ) -> None:
        tokens = sum(len(example.tokens) for example in examples)
        progress = self.progress
        progress.step = step
        progress.tokens += tokens
        progress.learnt_tokens += learnt
        progress.seconds += seconds
        self.throughput.add(tokens, learnt, seconds)
        entry = {"step": step, "loss": loss, "learning_rate": rate, "trained_tokens": progress.learnt_tokens}
        due = step % self.training.evaluate_every_steps == 0 or step == self.training.steps
        if due and self.validation.examples:
            entry["validation_loss"] = self._validation_loss()
        progress.curve.append(entry)
        if self.job.rank == 0:
            measures = {"loss": loss, **self.throughput.measures()}
            if "validation_loss" in entry:
                measures["validation_loss"] = entry["validation_loss"]
            self.reporter.heartbeat(step, self.training.steps, measures)

    def _validation_loss(self) -> float:
        """Loss over the learnt tokens of the validation part, dropout off."""
        import torch

        self.engine.training_mode(False)
        with torch.no_grad():
            sums = [float(self.engine.loss_sum(batch)) for batch in self._batches(self.validation.examples)]
        self.engine.training_mode(True)
        learnt = sum(example.learnt_tokens for example in self.validation.examples)
        return self.engine.total(math.fsum(sums))[0] / learnt

    def _batches(self, examples: Any) -> list[Microbatch]:
        return microbatches(
            examples,
            limit_tokens=self.training.micro_batch_tokens,
            packing=self.training.packing,
            workers=self.job.workers,
            # Recomputed layers keep no keys and values; partitioned weights are gathered for one pass each.
            share=not self.training.recompute and self.training.zero_stage < 3,
        )[self.job.rank]

    def _checkpoint(self) -> None:
        """Every worker takes part in gathering; the first writes and hands over."""
        weights, moments = self.engine.weights(), self.engine.moments()
        if self.job.rank == 0:
            directory = self.job.scratch / checkpoint.name(self.progress.step)
            checkpoint.write(directory, self.progress, weights, moments)
            self.reporter.checkpoint(directory, self.progress.step)

    def finish(self) -> None:
        """Write the stage's outputs: the adapter, the curve, the deterministic facts; hand over the measured ones."""
        weights = self.engine.weights()
        if any(not bool(weight.isfinite().all()) for weight in weights.values()):
            raise Failure(Reason.DIVERGED, "the adapter holds values that are not finite", where="last step")
        if self.job.rank != 0:
            return
        adapters.write(weights, self.engine.model, self.job.base, self.job.out)
        write_jsonl(self.job.out / "curve.jsonl", self.progress.curve)
        facts = _deterministic_facts(self, sum(weight.numel() for weight in weights.values()))
        (self.job.out / "training.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
        self.reporter.facts(
            {
                "training_seconds": round(self.progress.seconds, 3),
                "tokens": self.progress.tokens,
                "trained_tokens": self.progress.learnt_tokens,
                "throughput": self.throughput.measures(),
            }
        )


def _build_engine(job: Job, resumed: Checkpoint | None) -> tuple[Engine, int]:
    """The engine around base and adapter, and the base's number of parameters."""
    import torch

    training = job.settings.training
    device = loading.place(job.settings.device, job.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    partitioned = partitioned_loading(training, job.workers)
    model = loading.load_model(
        job.model, dtype=training.dtype, quantization=training.quantization, local_rank=job.local_rank
    )
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    if training.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = adapters.attach(model, job.settings.lora, job.settings.seed)
    if resumed:
        with torch.no_grad():
            for name, parameter in adapters.trainable(model).items():
                parameter.copy_(resumed.weights[name])
    engine = Engine(model, training, job.workers, device)
    engine.training_mode(True)
    del partitioned  # had to live until the model was loaded
    return engine, parameters


def _seed_dropout(seed: int, step: int, microbatch: int) -> None:
    """Make dropout a pure function of seed, step and micro-batch, so that a resume needs no generator's state."""
    import torch

    digest = hashlib.sha256(f"dropout/{seed}/{step}/{microbatch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))


def _deterministic_facts(run: _Run, trainable_parameters: int) -> dict[str, Any]:
    training, part, progress = run.training, run.part, run.progress
    last = progress.curve[-1]
    return {
        "steps": progress.step,
        "batch_rows": training.batch_rows,
        "rows": len(part.examples),
        "rows_too_long": part.too_long_rows,
        "rows_limit_tokens": _limit_tokens(run.settings),
        "rows_seen": progress.step * training.batch_rows,
        "epochs": round(progress.step * training.batch_rows / len(part.examples), 4),
        "tokens": progress.tokens,
        "trained_tokens": progress.learnt_tokens,
        "validation_rows": len(run.validation.examples),
        "validation_rows_too_long": run.validation.too_long_rows,
        "loss": last["loss"],
        "validation_loss": last.get("validation_loss"),
        "trainable_parameters": trainable_parameters,
        "base_parameters": run.parameters,
        "attention": loading.attention(),
        "base_model": run.job.base["base_model_name_or_path"],
    }
