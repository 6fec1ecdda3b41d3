"""`launcher status`: the state of every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.cli.list import run_state
from launcher.cli.options import output_option, store_options
from launcher.cli.output import emit, table
from launcher.cli.progress import detail
from launcher.store.runs import Try, find, view
from launcher.store.selection import open_named_store


@click.command("status")
@click.argument("run")
@click.option("--attempt", type=int, help="Number of the attempt.  [default: the newest]")
@store_options
@output_option("table", "json", "yaml")
def command(
    run: str, attempt: int | None, store_address: str | None, site_path: Path | None, output: str
) -> int:
    """Show the state of every stage of RUN. A prefix of the run's id is enough."""
    store = open_named_store(store_address, site_path)
    seen = view(store, find(store, run), attempt)
    if output == "table":
        click.echo(f"{seen.run_id}, attempt {seen.attempt.number}: {run_state(seen)}", err=True)
        rows = [[s.stage.name, s.state, str(len(s.tries)), detail(s)] for s in seen.stages]
        table(["STAGE", "STATE", "TRIES", "DETAIL"], rows)
        return 0
    emit(
        {
            "run": seen.run_id,
            "attempt": seen.attempt.number,
            "state": run_state(seen),
            "outcome": seen.outcome.to_json() if seen.outcome else None,
            "stages": [
                {
                    "name": s.stage.name,
                    "kind": s.stage.kind,
                    "key": s.stage.key,
                    "state": s.state,
                    "tries": [_try(one) for one in s.tries],
                    "heartbeat": s.heartbeat.to_json() if s.heartbeat else None,
                    "blocked_by": s.blocked_by,
                    "seconds": s.seconds,
                }
                for s in seen.stages
            ],
        },
        output,
    )
    return 0


def _try(one: Try) -> dict[str, Any]:
    end = one.end.to_json() if one.end else None
    return {"number": one.number, "started_at": one.started_at, "end": end}
