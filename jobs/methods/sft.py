"""Supervised fine-tuning (SFT): the training loop of one worker, the same for one worker and for many.

Elsewhere: rows of a step (`sampler`), micro-batches (`microbatches`), the model under DeepSpeed
(`deepspeed_setup`, `deepspeed_engine`), starting workers (`worker_pool`).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from typing import Any

from jobs.methods import checkpoint
from jobs.methods.checkpoint import Checkpoint, CurvePoint, Progress
from jobs.methods.deepspeed_setup import build_engine, init_process_group
from jobs.methods.microbatches import Microbatch, microbatches
from jobs.methods.sampler import rows_of_step
from jobs.methods.schedule import learning_rate
from jobs.methods.throughput import Throughput
from jobs.methods.training_facts import MeasuredTraining, TrainingFacts
from jobs.methods.training_job import Reporter, StoppedAtStep, TrainingJob
from jobs.models import adapters, loading
from jobs.models.examples import Example, TokenizedSplit, tokenize
from jobs.runtime.jsonl import write_jsonl
from jobs.tasks.rows import read_rows
from launcher.outcome import Failure, Reason


def train(job: TrainingJob, reporter: Reporter) -> None:
    """Train an adapter and write the outputs to `job.out`.

    Raises StoppedAtStep, Failure(BAD_DATA) without a training row, Failure(DIVERGED) for a loss that is not finite.
    """
    loading.prepare(max(1, job.settings.threads // job.workers), job.settings.device)
    tokenizer = loading.load_tokenizer(job.model)
    training = _split(job, tokenizer, "train")
    validation = _split(job, tokenizer, "validation")
    if not training.examples:
        raise Failure(
            Reason.BAD_DATA,
            f"no training row has at most {job.row_limit_tokens} tokens"
            if training.too_long_rows
            else "there are no training rows",
            next_step="raise training.max_length_tokens (and micro_batch_tokens), or give shorter rows",
        )
    if job.rank == 0:
        print(f"training: {training.summary()}\nvalidation: {validation.summary()}", flush=True)
    rendezvous = job.rendezvous or f"file://{job.scratch / 'rendezvous'}"
    init_process_group(job.rank, job.local_rank, job.workers, rendezvous, job.settings.device)
    loop = _Loop(job, reporter, training, validation)
    loop.run()
    loop.finish()


def _split(job: TrainingJob, tokenizer: Any, name: str) -> TokenizedSplit:
    return tokenize(
        read_rows(job.data / f"{name}.jsonl"),
        tokenizer,
        style=job.settings.prompt,
        loss=job.settings.training.loss,
        limit_tokens=job.row_limit_tokens,
    )


class _Loop:
    """One worker's steps, from the newest checkpoint to the finished adapter."""

    def __init__(
        self, job: TrainingJob, reporter: Reporter, train: TokenizedSplit, validation: TokenizedSplit
    ) -> None:
        self.job = job
        self.training = job.settings.training
        self.reporter = reporter
        self.train = train
        self.validation = validation
        resumed = checkpoint.read(job.checkpoint) if job.checkpoint else None
        self.engine = build_engine(job, resumed)
        self.progress = resumed.progress if resumed else Progress()
        self.throughput = Throughput(job.settings.device, job.workers, self.engine.base_parameters)
        if resumed and job.rank == 0:
            print(f"continuing after step {self.progress.step}", flush=True)

    def run(self) -> None:
        """Run the remaining steps, with checkpoints in between. Raises StoppedAtStep."""
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
        """Run one update; return whether any worker was asked to stop."""
        started = time.monotonic()
        seed, count = self.job.settings.seed, len(self.train.examples)
        numbers = rows_of_step(seed, step, self.training.batch_rows, count)
        examples = [self.train.examples[number] for number in numbers]
        trained_tokens = sum(example.trained_tokens for example in examples)
        sums = []
        for index, batch in enumerate(self._microbatches(examples)):
            _seed_dropout(seed, step, index * self.job.workers + self.job.rank)
            sums.append(self.engine.accumulate(batch, trained_tokens))
        loss_sum, stops = self.engine.all_reduce_sum(
            math.fsum(float(value) for value in sums), float(self.reporter.stop_requested)
        )
        loss = loss_sum / trained_tokens
        if not math.isfinite(loss):
            # Before the update, so that the weights stay finite.
            raise Failure(Reason.DIVERGED, f"the loss is {loss} at step {step}", where=f"step {step}")
        rate = learning_rate(self.training, step)
        self.engine.update(rate)
        seconds = time.monotonic() - started
        tokens = sum(len(example.tokens) for example in examples)
        self.throughput.add(tokens, trained_tokens, seconds)
        cumulative = self.progress.trained_tokens + trained_tokens
        point = CurvePoint(step, loss, rate, cumulative, self._validation_loss(step))
        self.progress = self.progress.after(point, tokens=tokens, seconds=seconds)
        if self.job.rank == 0:
            self._heartbeat(point)
        return bool(stops)

    def _heartbeat(self, point: CurvePoint) -> None:
        measures = {"loss": point.loss, **self.throughput.measures()}
        if point.validation_loss is not None:
            measures["validation_loss"] = point.validation_loss
        self.reporter.heartbeat(point.step, self.training.steps, measures)

    def _validation_loss(self, step: int) -> float | None:
        """Mean loss per trained token of the validation split, without dropout; None if not due at this step."""
        due = step % self.training.evaluate_every_steps == 0 or step == self.training.steps
        examples = self.validation.examples
        if not due or not examples:
            return None
        import torch

        self.engine.training_mode(False)
        with torch.no_grad():
            sums = [float(self.engine.loss_sum(batch)) for batch in self._microbatches(examples)]
        self.engine.training_mode(True)
        trained_tokens = sum(example.trained_tokens for example in examples)
        return self.engine.all_reduce_sum(math.fsum(sums))[0] / trained_tokens

    def _microbatches(self, examples: Sequence[Example]) -> list[Microbatch]:
        """This worker's micro-batches."""
        return microbatches(
            examples,
            limit_tokens=self.training.micro_batch_tokens,
            packing=self.training.packing,
            workers=self.job.workers,
            # Recomputed layers keep no KV cache; ZeRO-3 gathers weights for one forward pass at a time.
            share_prefix=not self.training.recompute and self.training.zero_stage < 3,
        )[self.job.rank]

    def _checkpoint(self) -> None:
        """Gather the state, which takes all workers; worker 0 writes it."""
        weights, moments = self.engine.weights(), self.engine.moments()
        if self.job.rank == 0:
            step = self.progress.step
            directory = self.job.scratch / checkpoint.name(step)
            checkpoint.write(directory, Checkpoint(self.progress, weights, moments))
            self.reporter.checkpoint(directory, step)

    def finish(self) -> None:
        """Write the stage's outputs and report what was measured."""
        weights = self.engine.weights()
        if any(not bool(weight.isfinite().all()) for weight in weights.values()):
            raise Failure(Reason.DIVERGED, "the adapter holds values that are not finite", where="last step")
        if self.job.rank != 0:
            return
        adapters.write(weights, self.engine.model, self.job.base, self.job.out)
        write_jsonl(self.job.out / "curve.jsonl", (point.to_json() for point in self.progress.curve))
        facts = self._facts(sum(weight.numel() for weight in weights.values()))
        text = json.dumps(facts.to_json(), indent=2, sort_keys=True) + "\n"
        (self.job.out / "training.json").write_text(text)
        self.reporter.measured(
            MeasuredTraining(
                training_seconds=round(self.progress.seconds, 3),
                tokens=self.progress.tokens,
                trained_tokens=self.progress.trained_tokens,
                throughput=self.throughput.measures(),
            )
        )

    def _facts(self, trainable_parameters: int) -> TrainingFacts:
        progress, rows = self.progress, len(self.train.examples)
        rows_seen = progress.step * self.training.batch_rows
        return TrainingFacts(
            steps=progress.step,
            batch_rows=self.training.batch_rows,
            rows=rows,
            rows_too_long=self.train.too_long_rows,
            rows_limit_tokens=self.job.row_limit_tokens,
            rows_seen=rows_seen,
            epochs=round(rows_seen / rows, 4),
            tokens=progress.tokens,
            trained_tokens=progress.trained_tokens,
            validation_rows=len(self.validation.examples),
            validation_rows_too_long=self.validation.too_long_rows,
            loss=progress.curve[-1].loss,
            validation_loss=progress.curve[-1].validation_loss,
            trainable_parameters=trainable_parameters,
            base_parameters=self.engine.base_parameters,
            attention=loading.attention(),
            base_model=self.job.base.name,
        )


def _seed_dropout(seed: int, step: int, microbatch: int) -> None:
    """Make dropout a pure function of seed, step and micro-batch, so a resume needs no generator state."""
    import torch

    digest = hashlib.sha256(f"dropout/{seed}/{step}/{microbatch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))
