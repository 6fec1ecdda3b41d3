"""`launcher artifacts`: list or download the files of a run."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from typing import Any

import click

from launcher.cli.options import output_option, store_options
from launcher.cli.output import emit, size, table
from launcher.outcome import Failure, Reason
from launcher.store import Artifact, digest_file
from launcher.store.runs import find, read_plan
from launcher.store.selection import open_named_store
from launcher.system.files import below


@click.command("artifacts")
@click.argument("run")
@click.option(
    "--stage",
    "stage_pattern",
    default="*",
    show_default=True,
    help="Stages to list: a name, a kind or a pattern.",
)
@click.option(
    "--file", "file_pattern", default="*", show_default=True, help="Files to list: a name or a pattern."
)
@click.option(
    "--fetch",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Copy the files to DIR/<stage>/ and check their digests.  [default: only list them]",
)
@store_options
@output_option("table", "json", "yaml", "name")
def command(
    run: str,
    stage_pattern: str,
    file_pattern: str,
    out: Path | None,
    store_address: str | None,
    site_path: Path | None,
    output: str,
) -> int:
    """List the files that RUN wrote, or copy them to a directory.

    \b
    launcher artifacts sql-3f9a --stage train --fetch adapters
    launcher artifacts sql-3f9a --file predictions.jsonl --fetch answers
    """
    store = open_named_store(store_address, site_path)
    run_id = find(store, run)
    rows: list[dict[str, Any]] = []
    for stage in read_plan(store, run_id).stages:
        wanted = stage.kind == stage_pattern or fnmatch.fnmatchcase(stage.name, stage_pattern)
        if not wanted or not store.exists(f"stages/{stage.key}"):
            continue
        artifact = store.open(f"stages/{stage.key}")
        for name, entry in artifact.manifest.files.items():
            if fnmatch.fnmatchcase(name, file_pattern):
                row = {
                    "stage": stage.name,
                    "file": name,
                    "size_bytes": entry.size_bytes,
                    "sha256": entry.sha256,
                }
                if out is not None:
                    row["path"] = str(_fetch(artifact, name, out, stage.name))
                rows.append(row)
    if not rows:
        raise Failure(
            Reason.NOT_FOUND,
            "no finished stage has a file that matches",
            where=run_id,
            next_step=f"launcher status {run_id}, or launcher artifacts {run_id} to list all files",
        )
    if output == "table":
        lines = [[r["stage"], r["file"], size(r["size_bytes"]), r["sha256"][:12]] for r in rows]
        table(["STAGE", "FILE", "SIZE", "SHA256"], lines)
    elif output == "name":
        for row in rows:
            click.echo(f"{row['stage']}/{row['file']}")
    else:
        emit(rows, output)
    total = size(sum(row["size_bytes"] for row in rows))
    done = f"fetched to {out} and verified" if out is not None else "in the store"
    click.echo(f"{len(rows)} files, {total}, {done}", err=True)
    return 0


def _fetch(artifact: Artifact, name: str, out: Path, stage: str) -> Path:
    """Copy one file and check its digest; the path of the copy. Raises Failure(CORRUPT_ARTIFACT | DISK_FULL)."""
    source = artifact.path(name)
    target = out / stage / name
    try:
        target = below(out, f"{stage}/{name}")
        shutil.copyfile(source, target)
        good = digest_file(target) == artifact.manifest.files[name]
    except OSError as error:
        reason = Reason.DISK_FULL if error.errno == 28 else Reason.STORE_FAILED
        raise Failure(reason, f"cannot write: {error.strerror}", where=str(target)) from None
    except ValueError as error:
        raise Failure(
            Reason.USAGE,
            f"would write outside of it: {error}",
            where=f"--fetch {out}",
            next_step="name an empty or new directory",
        ) from None
    if not good:
        target.unlink()
        raise Failure(
            Reason.CORRUPT_ARTIFACT,
            "the digest of the copy differs from the committed one",
            where=str(target),
        )
    return target
