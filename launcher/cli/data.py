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
    help="Directory with the data's files.  [default: the built-in sample]",
)
@click.option("--source", help="Which layout the directory has.  [default: found out]")
@click.option(
    "--out",
    "out_directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Empty or new directory for the result.",
)
@output_option("table", "json")
def command(
    task: str, data_directory: Path | None, source: str | None, out_directory: Path, output: str
) -> int:
    """Write TASK's chat rows, upload files and data card, as the stage `prepare` of a run would, from all rows."""
    arguments = ["data", task, "--out", str(out_directory)]
    arguments += [] if data_directory is None else ["--data", str(data_directory)]
    arguments += [] if source is None else ["--source", source]
    return run_jobs([*arguments, "-o", output])
