"""`launcher submit`: run an experiment, or continue it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher import site, submission
from launcher.cli import ending
from launcher.cli.follow import follow
from launcher.cli.options import (
    experiment_options,
    make_study,
    open_named_store,
    output_option,
    store_options,
)


@click.command("submit")
@experiment_options
@click.option(
    "--target",
    type=click.Choice(["local", "cluster"]),
    default="cluster",
    show_default=True,
    help="Where the run goes: this machine or the cluster of the current kubeconfig context.",
)
@click.option("--detach", is_flag=True, help="Start the run, print its id and return.")
@store_options
@output_option("text", "json", "yaml", "name")
def command(
    store_address: str | None, site_path: Path | None, target: str, detach: bool, output: str, **study: Any
) -> int:
    """Run EXPERIMENT (a built-in name or a YAML file) and print the verdict.

    The same experiment is the same run: submitting it again continues it, joins it while it
    runs, or prints its verdict once it has finished. Progress goes to stderr, the result to
    stdout; the exit code is 0 only if the run succeeded.

    \b
    launcher submit sql --target local
    launcher submit viggo --target local --data ~/data -o json
    launcher submit mine.yaml --set contenders[lora].training.steps=50
    """
    if target == "cluster":
        ending.refuse_cluster()
    made = make_study(**study)
    plan = made.plan
    store = open_named_store(store_address, site_path, writable=True)
    facts = site.load(site_path)
    submission.preflight_local(plan, store, facts.prices())
    submission.push_inputs(plan, store, made.resolution.locations)
    attempt = submission.open_attempt(
        plan, store, target=target, site=facts, budget_usd=made.experiment.budget_usd
    )
    click.echo(
        f"run {plan.run_id}, attempt {attempt.number}, {len(plan.stages)} stages, {store.address}", err=True
    )
    submission.start_local(attempt)
    if detach or output == "name":
        click.echo(plan.run_id)
        return 0
    return ending.report_end(attempt, follow(attempt), output)
