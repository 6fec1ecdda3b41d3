"""`launcher data`: prepare a data set without a run."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.options import output_option
from launcher.heavy import run_jobs


@click.command("data")
@click.argument("task", type=click.Choice(["sql", "viggo", "chat"]))
@click.option(
    "--data",
    "data_directory",
    type=click.Path(path_type=Path),
    help="Directory with the data's files.  [default: for sql the built-in sample]",
)
@click.option("--source", help="Which layout the directory has.  [default: found out]")
@click.option(
    "--out",
    "out_directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Empty or new directory for the result.",
)
@click.option(
    "--train-rows",
    type=click.IntRange(1),
    help="Take so many of the training rows.  [default: all; sample: 480]",
)
@click.option(
    "--validation-rows",
    type=click.IntRange(0),
    help="Take so many of the validation rows, out of the training rows where the source has none of its own.  "
    "[default: the source's own; sample: 60]",
)
@click.option(
    "--test-rows",
    type=click.IntRange(1),
    help="Take so many of the test rows.  [default: all; sample: 150]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Which rows a limit takes: it shuffles. Those taken stay in the data's order.",
)
@output_option("text", "json")
def command(
    task: str,
    data_directory: Path | None,
    source: str | None,
    out_directory: Path,
    train_rows: int | None,
    validation_rows: int | None,
    test_rows: int | None,
    seed: int,
    output: str,
) -> int:
    """Write TASK's chat rows, upload files and data card, as the stage `prepare` of a run would.

    \b
    launcher data viggo --data viggo/ --train-rows 480 --out prepared
    """
    arguments = ["data", task, "--out", str(out_directory), "--seed", str(seed), "-o", output]
    arguments += [] if data_directory is None else ["--data", str(data_directory)]
    arguments += [] if source is None else ["--source", source]
    limits = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    for part, rows in limits.items():
        arguments += [] if rows is None else [f"--{part}-rows", str(rows)]
    return run_jobs(arguments)
