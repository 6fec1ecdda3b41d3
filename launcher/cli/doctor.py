"""`launcher doctor`: check that this installation, this machine or a cluster can carry out runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import click

from launcher.cli.options import context_option, output_option, reject_cluster_options, store_options
from launcher.cli.output import emit, table
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.runs.preflight import require_shared_store
from launcher.spec import site
from launcher.store import open_store
from launcher.store.directory import explained
from launcher.store.selection import named_store
from launcher.system.text import printable

if TYPE_CHECKING:
    from launcher.spec.site import SecretKey, Site
    from launcher.targets.cluster.client import Cluster

#: Module -> (distribution, what it is for, extra).
_MODULES = {
    "sqlglot": ("sqlglot", "scores", "score"),
    "apsw": ("apsw", "scores", "score"),
    "torch": ("torch", "train and predict", "jobs"),
    "transformers": ("transformers", "train and predict", "jobs"),
    "peft": ("peft", "train", "jobs"),
    "deepspeed": ("deepspeed", "train", "jobs"),
    "gguf": ("gguf", "the demo's model", "jobs"),
    "bpe_openai": ("bpe-openai", "token counts", "jobs"),
}


@click.command("doctor")
@click.option(
    "--target",
    type=click.Choice(["local", "cluster"]),
    default="local",
    show_default=True,
    help="Target to check: this machine, or the site's namespace.",
)
@context_option
@store_options
@output_option("table", "json", "yaml")
def command(
    target: str, context: str | None, store_address: str | None, site_path: Path | None, output: str
) -> int:
    """Check that a target has all that runs need. The exit code is 0 only if nothing is missing.

    On a cluster, doctor looks up every Secret and key that the site file names, and sends the objects of the smallest
    run to the API server as a dry run. Nothing is applied, and no directory is created.
    """
    if target == "local":
        reject_cluster_options({"--context": context})
    facts, checks = _of_site(site_path, needed=target == "cluster")
    checks += _of_cluster(facts, context) if target == "cluster" else _of_machine()
    if facts is None and store_address is None:
        advice = "correct the site file, or name the store: --store ADDRESS"
        checks.append(Check("store", False, "unknown: the site file may name it", advice))
    else:
        checks.append(_of_store(named_store(store_address, site_path), target))
    if output == "table":
        rows = [["ok" if c.ok else "MISSING", c.name, c.found, c.advice] for c in checks]
        table(["STATE", "CHECK", "FOUND", "ADVICE"], rows)
    else:
        emit([{"check": c.name, "ok": c.ok, "found": c.found, "advice": c.advice} for c in checks], output)
    return 0 if all(c.ok for c in checks) else DISPOSITIONS[Reason.UNSUPPORTED].exit_code


@dataclass(frozen=True)
class Check:
    """The result of one check. `advice` is empty if it is `ok`."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def _of_machine() -> Iterator[Check]:
    good = sys.version_info >= (3, 11)
    yield Check("python", good, sys.version.split()[0], "" if good else "install Python 3.11 or newer")
    for module, (distribution, purpose, extra) in _MODULES.items():
        there = importlib.util.find_spec(module) is not None
        try:
            found = metadata.version(distribution) if there else f"not installed (for: {purpose})"
        except metadata.PackageNotFoundError:
            found = "installed, version unknown"
        yield Check(distribution, there, found, "" if there else f"pip install 'tuneyard[{extra}]'")
    cores = os.cpu_count() or 1
    yield Check("processors", cores >= 2, str(cores), "" if cores >= 2 else "the demo needs two")
    gpu = Path("/dev/nvidiactl").exists()
    yield Check("GPU", True, "NVIDIA driver" if gpu else "none (CPU only)")


def _of_site(site_path: Path | None, *, needed: bool) -> tuple[Site | None, list[Check]]:
    """The site file, None if it cannot be used, and a check for the file or for each of its problems."""
    path = site_path or site.default_path()
    try:
        facts = site.load(site_path)
    except Failure as failure:
        problems = failure.problems or (failure.what,)
        return None, [
            Check("site file", False, printable(f"{path}: {problem}"), failure.next_step)
            for problem in problems
        ]
    if site_path is None and not path.exists():
        advice = "write it (docs/cluster.md has an example), or name one: --site FILE" if needed else ""
        return facts, [Check("site file", not needed, f"none at {path}", advice)]
    return facts, [Check("site file", True, str(path))]


def _of_cluster(facts: Site | None, context: str | None) -> Iterator[Check]:
    """Checks of the namespace; without `facts`, only whether the API server answers."""
    from launcher.targets.cluster.client import connect

    try:
        cluster = connect(
            facts.namespace if facts else None, context, lambda text: click.echo(text, err=True)
        )
        jobs = cluster.list("Job") if facts else []
    except Failure as failure:
        yield Check("API server", False, _summary(failure), failure.next_step)
        return
    if facts is None:
        yield Check("API server", True, f"{cluster.connection.host} answers; the namespace is unknown")
        return
    yield Check("API server", True, f"{cluster.where}, {len(jobs)} Jobs")
    for purpose, named in facts.secrets.named().items():
        yield _of_secret(cluster, purpose, named)
    yield from _of_smallest_run(cluster, facts)


def _of_secret(cluster: Cluster, purpose: str, named: SecretKey) -> Check:
    name, wanted = f"secrets.{purpose}", f"key {named.key} of Secret {named.secret}"
    try:
        found = cluster.get("Secret", named.secret)
    except Failure as failure:
        return Check(name, True, f"{wanted}: not checked ({failure.what})")
    if found is None:
        return Check(name, False, f"there is no Secret {named.secret}", f"create it, with {wanted}")
    exists = named.key in (found.get("data") or {})
    return Check(
        name,
        exists,
        wanted if exists else f"{wanted} does not exist",
        "" if exists else "correct the site file",
    )


def _of_smallest_run(cluster: Cluster, facts: Site) -> Iterator[Check]:
    from launcher.manifests.render import render
    from launcher.resolve.resolver import resolve
    from launcher.spec.loading import load
    from launcher.spec.planner import plan
    from launcher.targets.cluster.preflight import preflight

    resolution = resolve(load("sql", profile="smoke"))
    try:
        notes = preflight(cluster, render(plan(resolution.experiment, resolution.lock), facts), facts)
    except Failure as failure:
        for problem in failure.problems or (failure.what,):
            yield Check("smallest run", False, problem, printable(failure.next_step))
        return
    yield Check("smallest run", True, "; ".join(("the API server accepts every object and pod", *notes)))


def _summary(failure: Failure) -> str:
    """Place, message and problems on one line."""
    place = f"{failure.where.removeprefix('--store ')}: " if failure.where else ""
    return printable(place + "; ".join((failure.what, *failure.problems)))


def _of_store(address: str, target: str) -> Check:
    try:
        # doctor creates no directory: the first run does.
        store = open_store(address, writable=urlparse(address).scheme == "s3")
        if target == "cluster":
            require_shared_store(store.address)
        place = _writable_ancestor(store.local_root)
    except Failure as failure:
        return Check("store", False, _summary(failure), failure.next_step)
    free_gib = shutil.disk_usage(place).free / 2**30
    good = free_gib > 4
    made = "" if place == store.local_root else ", does not exist yet"
    return Check(
        "store",
        good,
        f"{store.address}{made}, {free_gib:.0f} GiB free here",
        "" if good else "free space or name another --store",
    )


def _writable_ancestor(directory: Path) -> Path:
    """The directory or its nearest existing ancestor, after a temporary file was written there.

    Raises Failure(STORE_FAILED | DISK_FULL) if it cannot be written.
    """
    with explained(str(directory)):
        nearest = next(path for path in (directory, *directory.parents) if path.exists())
        with tempfile.TemporaryFile(dir=nearest) as stream:
            stream.write(b"tuneyard")
            stream.flush()
    return nearest
