"""`launcher plan`: stages, inputs and estimates of a run, before any money is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli.options import experiment_options, load_study, output_option, store_options
from launcher.cli.output import duration, emit, table
from launcher.costs.estimate import StageEstimate, TokenCounts, estimate, refuse_impossible
from launcher.costs.token_counts import count_tokens
from launcher.outcome import Failure, Reason
from launcher.resolve.study import Study
from launcher.runs.code_consent import task_code
from launcher.spec import site
from launcher.spec.key_hosts import key_uses
from launcher.spec.plan import Plan
from launcher.spec.stages import HostedPredictSettings, TuneSettings
from launcher.store import Store
from launcher.store.selection import open_named_store


@click.command("plan")
@experiment_options
@store_options
@output_option("table", "json", "yaml", "name")
def command(store_address: str | None, site_path: Path | None, output: str, **options: Any) -> int:
    """Show what a run of EXPERIMENT would do: stages, inputs, tokens, memory, hours and dollars.

    Nothing runs and nothing is written (except --lock FILE). Tokens are counted if the data is on this
    machine; otherwise they are unknown. Invalid data and stages that no machine can carry out are errors,
    as in `submit` and `render`.
    """
    study = load_study(**options)
    if output == "name":
        click.echo(study.plan.run_id)
        return 0
    store = open_named_store(store_address, site_path)
    counts = count_tokens(study.plan, study.resolution.locations)
    facts = site.load(site_path)
    estimates = estimate(study.plan, counts, facts.prices())
    if output == "table":
        _print(study, estimates, counts, store, facts)
    else:
        document = {
            "plan": study.plan.model_dump(mode="json"),
            "estimates": [one.to_json() for one in estimates],
        }
        emit(document, output)
    _check(study, estimates, store)
    return 0


def _print(
    study: Study, estimates: list[StageEstimate], counts: TokenCounts | None, store: Store, facts: site.Site
) -> None:
    plan = study.plan
    # The store is read first: if it does not answer, nothing is printed.
    states = ["done" if store.exists(f"stages/{stage.key}") else "to do" for stage in plan.stages]
    click.echo(f"run {plan.run_id}: {study.experiment.description or plan.experiment['name']}")
    # The plan's source, not the experiment's: the data of a lock may replace the sample.
    source = plan.experiment["data"]["source"]
    if counts is not None:
        click.echo(
            f"data {source}: {counts.train_rows} training rows "
            f"of {counts.train_tokens_per_row:.0f} tokens, "
            f"{counts.test_rows} questions of {counts.test_prompt_tokens_per_row:.0f} + "
            f"{counts.test_answer_tokens_per_row:.0f} tokens (cl100k_base, counted)"
        )
    else:
        click.echo(f"data {source}: tokens unknown until prepare")
    click.echo()
    rows = [
        [
            stage.name,
            state,
            one.device if not one.gpus else f"{one.gpus} x {one.device}",
            "–"
            if one.memory_gib is None
            else f"{one.memory_gib:.1f} of {one.memory_available_gib or 0:.1f} GiB",
            "–" if one.tokens is None else f"{one.tokens:,.0f}",
            "–" if one.hours is None else duration(3600 * one.hours),
            _cost(one),
            stage.key[:12],
        ]
        for stage, state, one in zip(plan.stages, states, estimates, strict=True)
    ]
    table(["STAGE", "STATE", "DEVICE", "MEMORY", "TOKENS", "TIME", "COST", "KEY"], rows)
    click.echo()
    if (code := task_code(plan)) is not None:
        click.echo(f"{code.description}; submit asks before it runs")
    for use in key_uses(plan, facts):
        refused = f"; submit refuses it: {use.problem}" if use.problem else ""
        click.echo(f"contender {use.contender} sends the key of {use.provider} to {use.host}{refused}")
    _print_inputs(plan)
    _print_costs(plan, estimates)


def _print_costs(plan: Plan, estimates: list[StageEstimate]) -> None:
    priced = [one.usd for one in estimates if one.usd is not None]
    rehearsed = [one.would_cost_usd for one in estimates if one.would_cost_usd is not None]
    unpriced = ", ".join(_unpriced(plan, estimates))
    if priced:
        click.echo(
            f"estimated cost ${sum(priced):.2f}" + (f" without {unpriced}: no estimate" if unpriced else "")
        )
    elif unpriced:
        click.echo(f"estimated cost: no estimate for {unpriced}")
    if rehearsed:
        click.echo(
            f"rehearsed: no service is called and nothing is paid; it would cost ${sum(rehearsed):.2f}"
        )
    if priced or rehearsed:
        click.echo("prices with source and date: launcher/spec/catalog/prices.yaml")


def _unpriced(plan: Plan, estimates: list[StageEstimate]) -> list[str]:
    """Stages that cost money, by the GPU hour or the token, but have no estimate."""
    paid = [
        one
        for stage, one in zip(plan.stages, estimates, strict=True)
        if one.gpus or isinstance(stage.typed_settings(), TuneSettings | HostedPredictSettings)
    ]
    return [one.stage for one in paid if one.usd is None and one.would_cost_usd is None]


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


def _check(study: Study, estimates: list[StageEstimate], store: Store) -> None:
    plan = study.plan
    # A finished stage does not run again.
    undoable = [
        one for one in estimates if one.problem and not store.exists(f"stages/{plan.stage(one.stage).key}")
    ]
    refuse_impossible(plan, undoable)
    budget = study.experiment.budget_usd
    total = sum(one.usd or 0.0 for one in estimates)
    if budget is not None and total > budget:
        raise Failure(
            Reason.OVER_BUDGET,
            f"the estimate is ${total:.2f}, budget_usd is ${budget:.2f}",
            where=plan.run_id,
            next_step="raise budget_usd, or lower training.steps",
        )
