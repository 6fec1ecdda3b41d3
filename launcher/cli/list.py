"""`launcher list`: the runs of a store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from launcher.cli.options import output_option, store_options
from launcher.cli.output import emit, size, table
from launcher.outcome import Failure
from launcher.store import Store
from launcher.store.gc import run_size_bytes
from launcher.store.runs import RunView, run_ids, view
from launcher.store.selection import open_named_store


def run_state(run: RunView) -> str:
    """The state of a run in one word: its outcome, `running`, or `stopped` if it has no conductor."""
    if run.outcome is not None:
        return run.outcome.reason.value
    return "running" if run.attempt.has_live_conductor else "stopped"


def _row(store: Store, run_id: str) -> dict[str, Any]:
    run = view(store, run_id)
    finished = sum(status.state == "finished" for status in run.stages)
    return {
        "run": run_id,
        "state": run_state(run),
        "stages": f"{finished}/{len(run.stages)}",
        "attempt": run.attempt.number,
        "size_bytes": run_size_bytes(store, run.plan),
        "opened_at": run.attempt.request.opened_at,
        "verdict": str((run.verdict or {}).get("summary", "")),
    }


def _unreadable(run_id: str, failure: Failure) -> dict[str, Any]:
    """The line of a run with a malformed object: it costs this run its line, and no other."""
    return {
        "run": run_id,
        "state": "unreadable",
        "stages": "",
        "attempt": 0,
        "size_bytes": 0,
        "opened_at": 0.0,
        "verdict": failure.what,
    }


def _time(opened_at: float) -> str:
    """A Unix time in the local zone; nothing for 0, the time of an attempt that is unknown or not open yet."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(opened_at)) if opened_at else ""


@click.command("list")
@store_options
@output_option("table", "json", "yaml", "name")
def command(store_address: str | None, site_path: Path | None, output: str) -> int:
    """List the runs of a store, newest last."""
    store = open_named_store(store_address, site_path)
    rows: list[dict[str, Any]] = []
    for run_id in run_ids(store):
        try:
            rows.append(_row(store, run_id))
        except Failure as failure:
            click.echo(f"warning: {run_id}: {failure.text()}", err=True)
            rows.append(_unreadable(run_id, failure))
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
                _time(row["opened_at"]),
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
