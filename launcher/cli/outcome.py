"""Output at the end of an attempt: the verdict, or the reason of its failure and the next command."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli import errors
from launcher.cli.output import duration, emit
from launcher.costs.receipt import Receipt
from launcher.outcome import Failure, Reason
from launcher.runs.report_page import price_lines
from launcher.store.records import Outcome
from launcher.store.runs import Attempt
from launcher.system.text import printable


def print_outcome(attempt: Attempt, outcome: Outcome, output: str) -> int:
    """Print the outcome of a closed attempt; the exit code for it."""
    if not outcome.succeeded:
        return errors.report(_failure(attempt.run_id, outcome), "submit")
    verdict = attempt.get("verdict.json")
    if output == "text":
        _print_verdict(attempt, verdict)
    elif output == "name":
        click.echo(attempt.run_id)
    else:
        emit(verdict, output)
    return 0


def _failure(run_id: str, outcome: Outcome) -> Failure:
    """The failure of a run: the one of its first failed stage, the stages blocked by it and the next commands."""
    failure = outcome.failure or Failure(outcome.reason, outcome.reason.value)
    place = f"{failure.where}: " if failure.where else ""
    blocked = [name for name, end in outcome.stages.items() if end.state == "blocked"]
    problems = (
        (*failure.problems, f"stages blocked by it: {', '.join(blocked)}") if blocked else failure.problems
    )
    next_step = f"launcher retry {run_id}"
    if failure.reason is not Reason.CANCELLED:
        next_step = (
            f"{printable(failure.next_step)}\n"
            f"      launcher why {run_id}; launcher retry {run_id} once it is corrected"
        )
    return Failure(
        outcome.reason,
        f"{run_id} {outcome.reason.value}: {place}{failure.what}",
        problems=problems,
        next_step=next_step,
    )


def _print_verdict(attempt: Attempt, verdict: dict[str, Any]) -> None:
    """Print the verdict on one screen; the report has the details."""
    results, costs = verdict["results"], {cost["name"]: cost for cost in verdict["costs"]}
    primary = results["primary"]
    is_mean = results["contenders"][0]["measures"][primary].get("kind") == "mean"
    click.secho(verdict["summary"], bold=True)
    click.echo()
    rows = [
        [
            "contender",
            primary if is_mean else f"{primary} accuracy",
            "95 % interval",
            "tokens in + out",
            "training",
            "answering",
            "cost",
        ]
    ]
    for contender in results["contenders"]:
        measure, cost, tokens = contender["measures"][primary], costs[contender["name"]], contender["tokens"]
        usd = [value for value in (cost["training_usd"], cost["answering_usd"]) if value is not None]
        rows.append(
            [
                contender["name"],
                f"{measure['value']:.4g}" if is_mean else f"{100 * measure['value']:.1f} %",
                f"{measure['low']:.4g} to {measure['high']:.4g}"
                if is_mean
                else f"{100 * measure['low']:.1f} to {100 * measure['high']:.1f} %",
                f"{tokens['prompt']:,.0f} + {tokens['answer']:,.0f}",
                duration(cost["training_seconds"]),
                duration(cost["answering_seconds"]),
                (f"would have cost ${sum(usd):.4f}" if cost["rehearsed"] else f"${sum(usd):.4f}")
                if usd
                else "not priced",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    click.echo()
    for comparison in results["comparisons"]:
        p = "" if comparison["p_value"] is None else f", McNemar p {comparison['p_value']:.2g}"
        difference, low, high = (comparison[name] for name in ("difference", "low", "high"))
        shown = f"{difference:+.4g}" if is_mean else f"{100 * difference:+.1f} points"
        interval = f"{low:+.4g} to {high:+.4g}" if is_mean else f"{100 * low:+.1f} to {100 * high:+.1f}"
        click.echo(
            f"{comparison['a']} − {comparison['b']}: {shown} on the same {comparison['rows']} questions "
            f"(95 % interval {interval}{p})"
        )
    for line in price_lines(Receipt.read(verdict["receipt"], "verdict.json")):
        click.echo(f"Price: {line}")
    for caveat in results["caveats"]:
        click.echo(f"Note: {caveat}")
    click.echo(
        f"Time: {duration(verdict['receipt']['seconds'])} in stages. Results digest {verdict['results_digest'][:12]}."
    )
    click.echo(f"Report: {attempt.store.fetch(attempt.path('report.md'))}")
