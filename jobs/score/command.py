"""`launcher score`: score a file of answers without a run. The result goes to stdout, messages to stderr."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from jobs.data.sources import detect, read_part
from jobs.measures.cache import default_path
from jobs.score import explanation
from jobs.score.predictions import read_answers
from jobs.score.scoring import score_rows
from jobs.score.summary_formats import summary_json, summary_text
from jobs.tasks.argument import TaskArgument
from jobs.tasks.contract import ScoreContext
from jobs.tasks.registry import Task
from jobs.tasks.stage_inputs import code_errors
from launcher.cli.options import output_option
from launcher.outcome import Failure, Reason
from launcher.spec.tasks import TaskFacts, built_in, built_in_names

_PROGRESS_INTERVAL_S = 0.5


def _has_scorers(facts: TaskFacts) -> bool:
    return facts.scorers is not None


def _scorers() -> str:
    """The built-in scorers of all tasks that have some, for help."""
    facts = [built_in(name).scorers for name in built_in_names()]
    return ", ".join(dict.fromkeys(name for one in facts if one is not None for name in one.built_in))


def _has_survivors(facts: TaskFacts) -> bool:
    return "survivors" in facts.score_options


def _has_workers(facts: TaskFacts) -> bool:
    return "workers" in facts.score_options


def _tasks(which: Callable[[TaskFacts], bool]) -> str:
    """The built-in tasks for which `which` is true, for help and messages."""
    return ", ".join(name for name in built_in_names() if which(built_in(name)))


@click.command("score")
@click.argument("task", type=TaskArgument())
@click.option(
    "--data",
    "data_directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory with the data set's files.",
)
@click.option("--source", help="Layout of the directory.  [default: detected]")
@click.option(
    "--split",
    required=True,
    help="Part of the data that the answers are for: train, validation, dev or test.",
)
@click.option(
    "--predictions",
    required=True,
    type=click.Path(path_type=Path),
    help='JSONL with one {"answer": …} per question in the data\'s order, or with {"id": …, "answer": …}.',
)
@click.option(
    "--scorer",
    "scorers",
    multiple=True,
    help=f"For task {_tasks(_has_scorers)}: {_scorers()} or module:function. Can be repeated.",
)
@click.option(
    "--explain", metavar="ROW", help="Show why one row (its number from 1, or its id) is right or wrong."
)
@click.option(
    "--details",
    type=click.Path(path_type=Path),
    help="Write the verdict on every row to this file (JSONL).  [default: not written]",
)
@click.option(
    "--survivors",
    type=click.Path(path_type=Path),
    help=f"For task {_tasks(_has_survivors)}: write surviving mutants to this file (JSONL).  [default: not written]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help=f"For task {_tasks(_has_workers)}: number of processes.  [default: one per processor]",
)
@click.option("--no-cache", is_flag=True, help="Ignore cached scores and compute every score again.")
@output_option("table", "json")
def command(
    task: Task,
    data_directory: Path,
    source: str | None,
    split: str,
    predictions: Path,
    scorers: tuple[str, ...],
    explain: str | None,
    details: Path | None,
    survivors: Path | None,
    workers: int | None,
    no_cache: bool,
    output: str,
) -> int:
    """Score answers to TASK's questions. No model, no run and no torch are needed: pip install 'tuneyard[score]'.

    \b
    launcher score sql --data spider/ --split dev --predictions answers.jsonl -o json
    """
    _refuse_options_of_other_tasks(task, scorers, survivors)
    written = {"--details": details, "--survivors": survivors}
    _check_writable({option: path for option, path in written.items() if path is not None})
    source = source or detect(task, data_directory)
    rows = read_part(task, source, data_directory, split)
    if not rows:
        raise Failure(Reason.BAD_DATA, f"the part '{split}' has no rows", where=str(data_directory))
    answers = read_answers(predictions, [row.id for row in rows])
    context = ScoreContext(
        directory=lambda: data_directory,
        settings=task.facts.resolved_settings({}),
        scorers=scorers,
        find_module=_module_here,
        progress=_Progress(),
        workers=workers,
        cache=None if no_cache else default_path(),
    )
    if explain is not None:
        place = explanation.find_row(rows, explain)
        with code_errors(task):
            found = explanation.explain(task, context, rows[place], answers[place])
        click.echo(json.dumps(found, indent=2) if output == "json" else explanation.text(found))
        return 0
    with code_errors(task):
        scores, summary = score_rows(task, context, rows, answers)
    result = {"source": source, "split": split, **summary_json(summary)}
    # Printed before the files are written: scoring takes long, and writing may still fail.
    click.echo(json.dumps(result, indent=2) if output == "json" else summary_text(summary))
    if details is not None:
        _write_jsonl(details, [score.to_json() for score in scores])
    if survivors is not None:
        _write_jsonl(survivors, summary["mutants"]["survivors"])
    return 0


def _refuse_options_of_other_tasks(task: Task, scorers: tuple[str, ...], survivors: Path | None) -> None:
    """Raises Failure(USAGE) for options that would have no effect."""
    problems = []
    if scorers and not _has_scorers(task.facts):
        problems.append(f"--scorer is for task {_tasks(_has_scorers)}: {task.name} has measures of its own")
    if survivors is not None and not _has_survivors(task.facts):
        problems.append(f"--survivors is for task {_tasks(_has_survivors)}: {task.name} has no mutants")
    if problems:
        raise Failure(
            Reason.USAGE,
            f"task {task.name} does not have these options",
            problems=tuple(problems),
            next_step="leave them out, or name the task they are for",
        )


def _check_writable(paths: Mapping[str, Path]) -> None:
    """Raises Failure(USAGE) before the work starts if a file cannot be written. Files are left unchanged."""
    problems = []
    for option, path in paths.items():
        target = path.resolve()
        is_new = not target.exists()
        if not is_new and not target.is_file() and not target.is_dir():
            continue  # a pipe or a terminal must not be opened twice
        try:
            target.open("ab").close()
        except OSError as error:
            problems.append(f"{option} {path}: {error.strerror}")
            continue
        if is_new:
            target.unlink()
    if problems:
        raise Failure(
            Reason.USAGE, "cannot write", problems=tuple(problems), next_step="name files that can be written"
        )


def _module_here(module: str) -> Path:
    path = Path(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        raise Failure(
            Reason.MISSING_INPUT,
            "the scorer's file is not in the current directory",
            where=str(path),
            next_step="go to the directory that holds it, or correct the name in --scorer",
        )
    return path


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise Failure(
            Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.USAGE,
            f"cannot write: {error.strerror}",
            where=str(path),
            next_step="name a file that can be written; the result above is complete",
        ) from None


class _Progress:
    """The percentage done, redrawn in place on stderr if that is a terminal."""

    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if self._live and (now - self._shown > _PROGRESS_INTERVAL_S or done == of):
            self._shown = now
            click.echo(f"\rscoring {100 * done // max(of, 1)} %", nl=done == of, err=True)
