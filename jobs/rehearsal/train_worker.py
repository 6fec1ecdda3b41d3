"""Training process of one job: `python -m jobs.rehearsal.train_worker JOB`, started by training.py.

It runs the training engine (jobs/methods) on a job description file and reports as JSON lines on stdout.
Output of libraries goes to stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from jobs.methods.sft import train
from jobs.methods.training_job import StoppedAtStep, TrainingJob, from_json
from jobs.methods.worker import PipeReporter
from jobs.methods.worker_pool import STOPPED
from jobs.models import loading
from jobs.models.examples import example
from jobs.tasks.rows import read_rows
from launcher.outcome import Failure, Reason


def main() -> int:
    reporter = PipeReporter(os.dup(1))
    os.dup2(2, 1)
    job = from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        if job.checkpoint is None:
            _check_lengths(job)
        train(job, reporter)
    except StoppedAtStep:
        return STOPPED
    except Failure as failure:
        reporter.failure(failure)
        return failure.exit_code
    except Exception as error:
        traceback.print_exc()
        reporter.failure(Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}"))
        return 1
    return 0


def _check_lengths(job: TrainingJob) -> None:
    """Raise Failure(BAD_DATA) listing every row that exceeds the base model's length: no row is dropped silently."""
    loading.prepare(job.settings.threads, job.settings.device)
    tokenizer = loading.load_tokenizer(job.model)
    limit = job.settings.training.max_length_tokens
    problems = []
    for part in ("train", "validation"):
        for number, row in enumerate(read_rows(job.data / f"{part}.jsonl"), 1):
            found = len(example(row, tokenizer, job.settings.prompt, job.settings.training.loss).tokens)
            if found > limit:
                problems.append(f"{part} file, example {number}: {found} tokens, at most {limit}")
    if problems:
        raise Failure(Reason.BAD_DATA, "examples are too long", problems=tuple(problems))


if __name__ == "__main__":
    sys.exit(main())
