"""`launcher list`: the runs of a store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from launcher.cli.options import output_option, store_options
from launcher.cli.output import emit, size, table
from launcher.outcome import Failure
from launcher.store.gc import run_size_bytes
from launcher.store.runs import RunView, run_ids, view
from launcher.store.selection import open_named_store


def run_state(run: RunView) -> str:
    """The state of a run in one word: its outcome, `running`, or `stopped` if it has no conductor."""
    if run.outcome is not None:
        return run.outcome.reason.value
    return "running" if run.attempt.has_live_conductor else "stopped"


@click.command("list")
@store_options
@output_option("table", "json", "yaml", "name")
def command(store_address: str | None, site_path: Path | None, output: str) -> int:
    """List the runs of a store, newest last."""
    store = open_named_store(store_address, site_path)
    rows: list[dict[str, Any]] = []
    for run_id in run_ids(store):
        try:
            run = view(store, run_id)
        except Failure as failure:
            click.echo(f"warning: {failure.text()}", err=True)
            continue
        finished = sum(status.state == "finished" for status in run.stages)
        rows.append(
            {
                "run": run_id,
                "state": run_state(run),
                "stages": f"{finished}/{len(run.stages)}",
                "attempt": run.attempt.number,
                "size_bytes": run_size_bytes(store, run.plan),
                "opened_at": run.attempt.request.opened_at,
                "verdict": (run.verdict or {}).get("summary", ""),
            }
        )
    rows.sort(key=lambda row: row["opened_at"])
    if output == "name":
        for row in rows:
            click.echo(row["run"])
    elif output == "table":
        lines = [
            [
                row["run"],
                row["state"],
                row["stages"],
                str(row["attempt"]),
                size(row["size_bytes"]),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(row["opened_at"])),
                row["verdict"][:80],
            ]
            for row in rows
        ]
        if lines:
            table(["RUN", "STATE", "STAGES", "ATTEMPT", "SIZE", "OPENED", "VERDICT"], lines)
        else:
            click.echo(f"no runs in {store.address}: launcher submit sql --target local", err=True)
    else:
        emit(rows, output)
    return 0
