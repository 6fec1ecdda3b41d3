"""`launcher gc`: garbage collection of a store."""

from __future__ import annotations

import re
from pathlib import Path

import click

from launcher.cli.options import output_option, store_options
from launcher.cli.output import emit, size, table
from launcher.store import gc
from launcher.store.selection import open_named_store

_UNITS_S = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class Age(click.ParamType[float]):
    """A number and a unit: 12h, 30d, 8w."""

    name = "age"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+)([hdw])", str(value))
        if match is None:
            self.fail(f"'{value}' is not an age: write a number and h, d or w, for example 30d", param, ctx)
        return int(match[1]) * _UNITS_S[match[2]]


@click.command("gc")
@click.option(
    "--older-than",
    "older_than_s",
    type=Age(),
    default="30d",
    show_default=True,
    help="Age from which runs may be deleted, since their last sign of life (12h, 30d, 8w).",
)
@click.option(
    "--keep-best/--no-keep-best",
    default=True,
    show_default=True,
    help="Keep the most accurate run of every experiment and data source, whatever its age.",
)
@click.option("--delete", "really", is_flag=True, help="Delete what is listed.  [default: only list it]")
@store_options
@output_option("table", "json", "yaml")
def command(
    older_than_s: float,
    keep_best: bool,
    really: bool,
    store_address: str | None,
    site_path: Path | None,
    output: str,
) -> int:
    """List what the store no longer needs: old runs, stages that no kept run uses, remains of crashes.

    Nothing is deleted without --delete. Running runs, and stages and inputs that a kept run uses,
    are never deleted.
    """
    store = open_named_store(store_address, site_path, writable=really)
    found = gc.plan_gc(store, older_than_s=older_than_s, keep_best=keep_best)
    for problem in found.problems:
        click.echo(f"warning: {problem}", err=True)
    gone = found.deletions
    if really:
        gone = gc.delete(store, found, older_than_s=older_than_s, keep_best=keep_best)
    if output == "table":
        table(["SIZE", "WHAT", "WHY"], [[size(one.size_bytes), one.path, one.why] for one in gone])
    else:
        doomed = [{"path": one.path, "size_bytes": one.size_bytes, "why": one.why} for one in gone]
        emit({"deleted": really, "doomed": doomed, "kept": found.kept, "problems": found.problems}, output)
    total = size(sum(one.size_bytes for one in gone))
    kept = ", ".join(f"{run} ({why})" for run, why in sorted(found.kept.items())) or "no run"
    click.echo(f"kept: {kept}", err=True)
    if really:
        click.echo(f"deleted {len(gone)} items, {total}", err=True)
    elif gone:
        click.echo(f"{len(gone)} items, {total} would be deleted: the same command with --delete", err=True)
    else:
        click.echo("nothing to delete", err=True)
    return 0
