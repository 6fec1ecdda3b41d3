"""`launcher plan`: what would happen, before any money is spent."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from launcher import site
from launcher.cli.options import (
    Study,
    experiment_options,
    make_study,
    open_named_store,
    output_option,
    store_options,
)
from launcher.cli.show import duration, emit, table
from launcher.estimate import StageEstimate, TokenCounts, estimate
from launcher.outcome import Failure, Reason
from launcher.plan import Plan
from launcher.store import Store

_COUNT_TIMEOUT_S = 120


@click.command("plan")
@experiment_options
@store_options
@output_option("table", "json", "yaml", "name")
def command(store_address: str | None, site_path: Path | None, output: str, **study: Any) -> int:
    """Show what a run of EXPERIMENT would do: stages, inputs, tokens, memory, hours and dollars.

    Nothing runs and nothing is written (except --lock FILE). Tokens are counted where the data
    is at hand; what cannot be known yet is called unknown.
    """
    made = make_study(**study)
    if output == "name":
        click.echo(made.plan.run_id)
        return 0
    store = open_named_store(store_address, site_path)
    counts = count_tokens(made)
    estimates = estimate(made.plan, counts, site.load(site_path).prices())
    if output == "table":
        _print(made, estimates, counts, store)
    else:
        document = {
            "plan": made.plan.model_dump(mode="json"),
            "estimates": [one.to_json() for one in estimates],
        }
        emit(document, output)
    _refuse(made, estimates)
    return 0


def count_tokens(made: Study) -> TokenCounts | None:
    """Exact counts from the data, by the heavy side in a subprocess; None where data or heavy side are not here."""
    prepare = made.plan.stage("prepare")
    if prepare.needs:
        return None  # the data is downloaded first
    with tempfile.TemporaryDirectory() as directory:
        request = Path(directory) / "request.json"
        locations = {
            name: str(made.resolution.locations.get(sha, "")) for name, sha in prepare.inputs.items()
        }
        request.write_text(json.dumps({"settings": prepare.settings, "locations": locations}))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "jobs", "count", str(request)],
                capture_output=True,
                timeout=_COUNT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode != 0:
        return None
    return TokenCounts(**json.loads(done.stdout))


def _print(made: Study, estimates: list[StageEstimate], counts: TokenCounts | None, store: Store) -> None:
    plan = made.plan
    click.echo(f"run {plan.run_id}: {made.experiment.description or plan.experiment['name']}")
    if counts is not None:
        click.echo(
            f"data {made.experiment.data.source}: {counts.train_rows} training rows "
            f"of {counts.train_tokens_per_row:.0f} tokens, "
            f"{counts.test_rows} questions of {counts.test_prompt_tokens_per_row:.0f} + "
            f"{counts.test_answer_tokens_per_row:.0f} tokens (cl100k_base, counted)"
        )
    else:
        click.echo(f"data {made.experiment.data.source}: tokens unknown until prepare")
    click.echo()
    rows = [
        [
            stage.name,
            "done" if store.exists(f"stages/{stage.key}") else "to do",
            one.device if not one.gpus else f"{one.gpus} x {one.device}",
            "–"
            if one.memory_gib is None
            else f"{one.memory_gib:.1f} of {one.memory_available_gib or 0:.1f} GiB",
            "–" if one.tokens is None else f"{one.tokens:,.0f}",
            "–" if one.hours is None else duration(3600 * one.hours),
            _cost(one),
            stage.key[:12],
        ]
        for stage, one in zip(plan.stages, estimates, strict=True)
    ]
    table(["STAGE", "STATE", "DEVICE", "MEMORY", "TOKENS", "TIME", "COST", "KEY"], rows)
    click.echo()
    _print_inputs(plan)
    priced = [one.usd for one in estimates if one.usd is not None]
    rehearsed = [one.would_cost_usd for one in estimates if one.would_cost_usd is not None]
    if priced:
        click.echo(f"estimated cost ${sum(priced):.2f}")
    if rehearsed:
        click.echo(f"rehearsed: no service is asked and nothing is paid; it would cost ${sum(rehearsed):.2f}")
    if priced or rehearsed:
        click.echo("prices with source and date: launcher/catalog/prices.yaml")


def _cost(one: StageEstimate) -> str:
    if one.would_cost_usd is not None:
        return f"would cost ${one.would_cost_usd:.2f}"
    return "–" if one.usd is None else f"${one.usd:.2f}"


def _print_inputs(plan: Plan) -> None:
    inputs = {name: sha256 for stage in plan.stages for name, sha256 in stage.inputs.items()}
    for name, sha256 in sorted(inputs.items())[:6]:
        click.echo(f"input {name} sha256 {sha256[:12]}…")
    if len(inputs) > 6:
        click.echo(f"… and {len(inputs) - 6} more inputs (-o json shows all)")


def _refuse(made: Study, estimates: list[StageEstimate]) -> None:
    problems = tuple(f"{one.stage}: {one.problem}" for one in estimates if one.problem)
    if problems:
        raise Failure(
            Reason.UNSUPPORTED,
            "the plan cannot be carried out",
            where=made.plan.run_id,
            problems=problems,
        )
    budget = made.experiment.budget_usd
    total = sum(one.usd or 0.0 for one in estimates)
    if budget is not None and total > budget:
        raise Failure(
            Reason.OVER_BUDGET,
            f"estimated at ${total:.2f}, budget_usd is ${budget:.2f}",
            where=made.plan.run_id,
            next_step="raise budget_usd, or lower training.steps",
        )
