"""`launcher score`: score a file of answers without a run."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.options import output_option
from launcher.heavy import run_jobs


@click.command("score")
@click.argument("task", type=click.Choice(["sql", "viggo", "chat"]))
@click.option(
    "--data",
    "data_directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory with the data's files.",
)
@click.option("--source", help="Which layout the directory has.  [default: found out]")
@click.option(
    "--split", required=True, help="Part of the data the answers are for: train, validation, dev or test."
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
    help="For task chat: exact, choice, number, json or module:function. Can be repeated.",
)
@click.option(
    "--explain", metavar="ROW", help="Say why one row (its number from 1, or its id) is right or wrong."
)
@click.option(
    "--details",
    type=click.Path(path_type=Path),
    help="Write every row's verdict there, as JSONL.  [default: not written]",
)
@click.option(
    "--survivors",
    type=click.Path(path_type=Path),
    help="For task sql: write the wrong queries that no database tells from the gold there, as JSONL.  "
    "[default: not written]",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), help="For task sql: processes.  [default: one per processor]"
)
@click.option("--no-cache", is_flag=True, help="Score anew what was scored before.")
@output_option("table", "json")
def command(
    task: str,
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
    arguments = [
        "score",
        task,
        "--data",
        str(data_directory),
        "--split",
        split,
        "--predictions",
        str(predictions),
    ]
    arguments += [] if source is None else ["--source", source]
    arguments += [word for scorer in scorers for word in ("--scorer", scorer)]
    arguments += [] if explain is None else ["--explain", explain]
    arguments += [] if details is None else ["--details", str(details)]
    arguments += [] if survivors is None else ["--survivors", str(survivors)]
    arguments += [] if workers is None else ["--workers", str(workers)]
    arguments += ["--no-cache"] if no_cache else []
    return run_jobs([*arguments, "-o", output])
