"""`launcher report`: the report or the verdict of a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.options import output_option, store_options
from launcher.cli.output import emit
from launcher.outcome import Failure, Reason
from launcher.runs import report_page
from launcher.store.runs import find, view
from launcher.store.selection import open_named_store


@click.command("report")
@click.argument("run")
@click.option("--attempt", type=int, help="Number of the attempt.  [default: the newest]")
@store_options
@output_option("markdown", "json", "yaml")
def command(
    run: str, attempt: int | None, store_address: str | None, site_path: Path | None, output: str
) -> int:
    """Print the report of RUN as Markdown, or its verdict as JSON or YAML."""
    store = open_named_store(store_address, site_path)
    seen = view(store, find(store, run), attempt)
    document = seen.verdict
    if document is None:
        raise Failure(
            Reason.NOT_FOUND,
            f"attempt {seen.attempt.number} has no verdict",
            where=seen.run_id,
            next_step=f"launcher why {seen.run_id}",
        )
    if output == "markdown":
        click.echo(report_page.render(document), nl=False)
    else:
        emit(document, output)
    return 0
