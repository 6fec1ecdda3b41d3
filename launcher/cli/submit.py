"""`launcher submit`: run an experiment, or continue it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli.options import (
    allow_code_option,
    chosen_target,
    cluster_options,
    consent,
    experiment_options,
    load_study,
    output_option,
    store_options,
)
from launcher.cli.outcome import print_outcome
from launcher.cli.progress import watch
from launcher.runs.submission import continue_run
from launcher.spec import site
from launcher.store.runs import Attempt
from launcher.store.selection import open_named_store
from launcher.targets.runner import Runner


@click.command("submit")
@experiment_options
@click.option(
    "--target",
    type=click.Choice(["local", "cluster"]),
    default="cluster",
    show_default=True,
    help="Target of the run: this machine, or the cluster of the current kubeconfig context.",
)
@cluster_options
@allow_code_option
@click.option("--detach", is_flag=True, help="Start the run, print its id and return.")
@store_options
@output_option("text", "json", "yaml", "name")
def command(
    store_address: str | None,
    site_path: Path | None,
    target: str,
    overlay_path: Path | None,
    context: str | None,
    allow_code: str | None,
    detach: bool,
    output: str,
    **options: Any,
) -> int:
    """Run EXPERIMENT (a built-in name or a YAML file) and print the verdict.

    The same experiment is the same run: submitting it again continues it, joins it while it
    runs, or prints its verdict once it has finished. Progress goes to stderr, the result to
    stdout; the exit code is 0 only if the run succeeded.

    \b
    launcher submit sql --site site.yaml
    launcher submit sql --target local
    launcher submit viggo --target local --data ~/data -o json
    launcher submit mine.yaml --set contenders[lora].training.steps=50
    """
    study = load_study(**options)
    facts = site.load(site_path)
    submission = continue_run(
        study.plan,
        open_named_store(store_address, site_path, writable=True),
        target=target,
        site=facts,
        budget_usd=study.experiment.budget_usd,
        locations=study.resolution.locations,
    )
    run = Runner(chosen_target(target, facts, overlay_path, context), consent(allow_code)).submit(
        submission, opened=_announce
    )
    if detach or output == "name":
        click.echo(run.id)
        return 0
    return print_outcome(run.attempt, watch(run.attempt, run.supervise()), output)


def _announce(attempt: Attempt) -> None:
    stages = len(attempt.plan.stages)
    click.echo(
        f"run {attempt.run_id}, attempt {attempt.number}, {stages} stages, {attempt.store.address}", err=True
    )
