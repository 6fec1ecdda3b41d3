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
@output_option("table", "json")
def command(
    task: str,
    data_directory: Path,
    source: str | None,
    split: str,
    predictions: Path,
    scorers: tuple[str, ...],
    explain: str | None,
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
    return run_jobs([*arguments, "-o", output])
