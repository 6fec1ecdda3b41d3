"""`launcher cancel`: stop a run."""

from __future__ import annotations

import time
from pathlib import Path

import click

from launcher import closing
from launcher.cli.options import open_named_store, store_options
from launcher.local import GRACE_S
from launcher.outcome import Failure, Reason
from launcher.runs import Attempt, attempts, conductor_alive, find


@click.command("cancel")
@click.argument("run")
@store_options
def command(run: str, store_address: str | None, site_path: Path | None) -> int:
    """Stop RUN: its stages save their progress and end, its attempt is closed. Finished stages are kept."""
    store = open_named_store(store_address, site_path, writable=True)
    run_id = find(store, run)
    known = attempts(store, run_id)
    attempt = Attempt(store, run_id, known[-1] if known else 1)
    if not closing.cancel(attempt):
        outcome = attempt.outcome or {}
        click.echo(
            f"{run_id}: attempt {attempt.number} has ended already ({outcome.get('reason')})", err=True
        )
        return 0
    deadline = time.monotonic() + GRACE_S + 10
    while conductor_alive(store, run_id):
        if time.monotonic() > deadline:
            raise Failure(
                Reason.INTERNAL, "it is still stopping", where=run_id, next_step=f"launcher status {run_id}"
            )
        time.sleep(0.05)
    click.echo(f"{run_id}: cancelled (launcher retry {run_id} goes on from here)", err=True)
    return 0
