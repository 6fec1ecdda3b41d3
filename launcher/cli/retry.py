"""`launcher retry`: another attempt at a run."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.options import (
    allow_code_option,
    chosen_target,
    cluster_options,
    consent,
    output_option,
    store_options,
)
from launcher.cli.outcome import print_outcome
from launcher.cli.progress import watch
from launcher.runs.submission import retry_run
from launcher.spec import site
from launcher.store.runs import Attempt, find
from launcher.store.selection import open_named_store
from launcher.targets.runner import Runner


@click.command("retry")
@click.argument("run")
@click.option(
    "--budget-usd",
    type=click.FloatRange(min=0),
    help="New spending cap in dollars, over all attempts.  [default: the last attempt's]",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change placement, for example contenders[lora].hardware.memory_gib=16. Can be repeated.",
)
@click.option(
    "--target",
    type=click.Choice(["local", "cluster"]),
    help="Target of the attempt.  [default: the last attempt's]",
)
@cluster_options
@allow_code_option
@click.option("--detach", is_flag=True, help="Start the attempt, print the run's id and return.")
@store_options
@output_option("text", "json", "yaml", "name")
def command(
    run: str,
    budget_usd: float | None,
    sets: tuple[str, ...],
    target: str | None,
    overlay_path: Path | None,
    context: str | None,
    allow_code: str | None,
    detach: bool,
    store_address: str | None,
    site_path: Path | None,
    output: str,
) -> int:
    """Start another attempt at RUN if the last one failed or was cancelled. Finished stages are kept."""
    store = open_named_store(store_address, site_path, writable=True)
    facts = site.load(site_path)
    submission = retry_run(
        store, find(store, run), target=target, site=facts, budget_usd=budget_usd, sets=sets
    )
    chosen = chosen_target(submission.target, facts, overlay_path, context)
    started = Runner(chosen, consent(allow_code)).submit(submission, opened=_announce)
    if detach or output == "name":
        click.echo(started.id)
        return 0
    return print_outcome(started.attempt, watch(started.attempt, started.supervise()), output)


def _announce(attempt: Attempt) -> None:
    click.echo(f"run {attempt.run_id}, attempt {attempt.number}", err=True)
