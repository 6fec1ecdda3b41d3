"""`launcher cancel`: stop a run."""

from __future__ import annotations

from pathlib import Path

import click

from launcher import closing
from launcher.cli.options import open_named_store, store_options
from launcher.runs import find
from launcher.submission import newest_attempt
from launcher.targets import wait_until_left


@click.command("cancel")
@click.argument("run")
@store_options
def command(run: str, store_address: str | None, site_path: Path | None) -> int:
    """Stop RUN: its stages save their progress and end, its attempt is closed. Finished stages are kept."""
    store = open_named_store(store_address, site_path, writable=True)
    run_id = find(store, run)
    attempt = newest_attempt(store, run_id)
    if not closing.cancel(attempt):
        outcome = attempt.outcome or {}
        click.echo(
            f"{run_id}: attempt {attempt.number} has ended already ({outcome.get('reason')})", err=True
        )
        return 0
    wait_until_left(attempt)
    click.echo(f"{run_id}: cancelled (launcher retry {run_id} goes on from here)", err=True)
    return 0
