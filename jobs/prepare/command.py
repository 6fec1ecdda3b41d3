"""`launcher data`: write a task's prepared data to a directory, without a run. The card goes to stdout."""

from __future__ import annotations

import errno
import json
import re
import tempfile
from pathlib import Path

import click

from jobs.data.sources import detect
from jobs.tasks.argument import TaskArgument
from jobs.tasks.registry import Task
from jobs.tasks.stage_inputs import code_errors
from launcher.cli.options import output_option
from launcher.outcome import Failure, Reason
from launcher.spec.experiment import Data


@click.command("data")
@click.argument("task", type=TaskArgument())
@click.option(
    "--data",
    "data_directory",
    type=click.Path(path_type=Path),
    help="Directory with the source's files.  [default: the task's built-in sample, if it has one]",
)
@click.option("--source", help="Layout of the directory.  [default: detected]")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory for the result, empty or new.",
)
@click.option(
    "--train-rows",
    type=click.IntRange(1),
    help="Number of training rows to sample.  [default: all; sample: 480]",
)
@click.option(
    "--validation-rows",
    type=click.IntRange(0),
    help="Number of validation rows to sample; from the training rows if the source has no validation part.  "
    "[default: the source's own; sample: 60]",
)
@click.option(
    "--test-rows",
    type=click.IntRange(1),
    help="Number of test rows to sample.  [default: all; sample: 150]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed for sampling rows; row order is kept.",
)
@output_option("text", "json")
def command(
    task: Task,
    data_directory: Path | None,
    source: str | None,
    out: Path,
    train_rows: int | None,
    validation_rows: int | None,
    test_rows: int | None,
    seed: int,
    output: str,
) -> int:
    """Write TASK's chat rows, upload files and data card, as the stage `prepare` of a run does.

    \b
    launcher data viggo --data viggo/ --train-rows 480 --out prepared
    """
    # Imports the tokenizer, which takes half a second: `--help` does without.
    from jobs.data.card import summary

    _check_empty(out)
    data = Data.model_validate(
        {
            "source": _source(task, source, data_directory),
            "train_rows": train_rows,
            "validation_rows": validation_rows,
            "test_rows": test_rows,
            "seed": seed,
        }
    )
    try:
        card = _prepare(task, data, data_directory, out)
    except Failure as failure:
        raise _in_terms_of_options(failure) from None
    click.echo(json.dumps(card, indent=2, ensure_ascii=False) if output == "json" else summary(card))
    return 0


def _in_terms_of_options(failure: Failure) -> Failure:
    """The same failure with this command's options in place of an experiment's keys."""
    problems = tuple(
        re.sub(r"\bdata\.(train|validation|test)_rows\b", r"--\1-rows", line) for line in failure.problems
    )
    return Failure(
        failure.reason,
        failure.what,
        where=failure.where,
        problems=problems,
        next_step=failure.next_step,
        cause=failure.cause,
    )


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(
            Reason.USAGE,
            "exists and is not an empty directory",
            where=f"--out {out}",
            next_step="name an empty or new directory: --out DIR",
        )


def _source(task: Task, source: str | None, directory: Path | None) -> str:
    """The name of the source to read. Raises Failure(USAGE | MISSING_INPUT)."""
    generated = [name for name, known in task.facts.sources.items() if known.generated]
    if source is None and directory is None and generated:
        return generated[0]
    if source in generated:
        return str(source)
    if source is not None and source not in task.facts.sources:
        names = [name for name in task.facts.sources if name not in generated] + generated
        raise Failure(
            Reason.USAGE,
            f"task '{task.name}' cannot be prepared from it",
            where=f"--source {source}",
            next_step=f"name one of {', '.join(names)}",
        )
    if directory is None:
        raise Failure(
            Reason.USAGE,
            "no directory is named",
            where="--data",
            next_step="name the one with the source's files: --data DIR",
        )
    if not directory.is_dir():
        raise Failure(Reason.MISSING_INPUT, "there is no such directory", where=f"--data {directory}")
    return source or detect(task, directory)


def _prepare(task: Task, data: Data, directory: Path | None, out: Path) -> dict[str, object]:
    """Write the files to `out` and return the card. Raises Failure; then `out` is not created."""
    from jobs.data.writer import prepare

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # The directory gets its name when it is complete.
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".tuneyard-") as staged:
            work = Path(staged) / "out"
            work.mkdir()
            with code_errors(task):
                card = prepare(task, data, directory or work, work, lambda _done, _total: None)
            if out.exists():
                out.rmdir()
            work.rename(out)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise Failure(
            Reason.DISK_FULL if full else Reason.STORE_FAILED,
            f"cannot write: {error.strerror}",
            where=f"--out {out}",
            next_step="free space, or name another: --out DIR"
            if full
            else "name one that can be written: --out DIR",
        ) from None
    return card
