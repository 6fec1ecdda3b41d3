"""`launcher retry`: another attempt."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli import ending
from launcher.cli.follow import follow
from launcher.cli.options import chosen_target, cluster_options, output_option, store_options
from launcher.runs import submission
from launcher.spec import site
from launcher.store.runs import find
from launcher.store.selection import open_named_store


@click.command("retry")
@click.argument("run")
@click.option(
    "--budget-usd",
    type=click.FloatRange(min=0),
    help="Another spend cap, dollars over all attempts.  [default: the one of before]",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Another placement, for example contenders[lora].hardware.memory_gib=16. Can be repeated.",
)
@click.option(
    "--target",
    type=click.Choice(["local", "cluster"]),
    help="Where the attempt goes.  [default: where the last one went]",
)
@cluster_options
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
    detach: bool,
    store_address: str | None,
    site_path: Path | None,
    output: str,
) -> int:
    """Open another attempt at RUN, whose last one failed or was cancelled. Finished stages are kept."""
    store = open_named_store(store_address, site_path, writable=True)
    facts = site.load(site_path)
    following = submission.next_attempt(
        store, find(store, run), target=target, site=facts, budget_usd=budget_usd, sets=sets
    )
    place = chosen_target(following.target, facts, overlay_path, context)
    # A refused attempt is not opened: the next retry is asked the same question again.
    place.check(following.plan, store, following.attempt.number, following.budget_usd)
    attempt = following.open()
    click.echo(f"run {attempt.run_id}, attempt {attempt.number}", err=True)
    place.start(attempt)
    if detach or output == "name":
        click.echo(attempt.run_id)
        return 0
    return ending.report_end(attempt, follow(attempt, place.supervise(attempt)), output)
