"""`launcher cancel`: stop a run."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.options import CLUSTER_PATIENCE_S, context_option, store_options
from launcher.outcome import Failure, Reason
from launcher.runs import finalize
from launcher.runs.submission import newest_attempt
from launcher.spec import site
from launcher.store.runs import Attempt, find
from launcher.store.selection import open_named_store
from launcher.system.text import printable
from launcher.targets.runner import wait_until_left


@click.command("cancel")
@click.argument("run")
@context_option
@store_options
def command(run: str, context: str | None, store_address: str | None, site_path: Path | None) -> int:
    """Stop RUN: its stages save their progress and end, and its attempt is closed. Finished stages are kept."""
    store = open_named_store(store_address, site_path, writable=True)
    run_id = find(store, run)
    attempt = newest_attempt(store, run_id)
    closed = finalize.cancel(attempt)
    abandoned = _abandoned(attempt, site_path, context)
    if closed and not abandoned:
        lived = attempt.conductor_seen_recently
        wait_until_left(attempt)
        # The conductor's Job may have failed permanently while it was stopping.
        abandoned = lived and _abandoned(attempt, site_path, context)
    if abandoned:
        click.echo(
            f"{run_id}: the Job of its conductor had failed; it was deleted with the Jobs of its stages",
            err=True,
        )
    if not closed:
        reason = attempt.outcome.reason.value if attempt.outcome else None
        click.echo(f"{run_id}: attempt {attempt.number} has ended already ({reason})", err=True)
        return 0
    click.echo(f"{run_id}: cancelled (launcher retry {run_id} continues it)", err=True)
    return 0


def _abandoned(attempt: Attempt, site_path: Path | None, context: str | None) -> bool:
    """Delete stage Jobs whose conductor has failed permanently; whether there were any."""
    if attempt.target != "cluster" or attempt.conductor_exited:
        return False
    from launcher.manifests.labels import ATTEMPT_LABEL, RUN_LABEL
    from launcher.targets.cluster.client import Cluster
    from launcher.targets.cluster.supervision import end_abandoned

    try:
        namespace = site.load(site_path).namespace
        if namespace is None:
            raise Failure(Reason.USAGE, "no site file names the namespace (--site FILE)")
        return end_abandoned(attempt, Cluster.connect(namespace, context, timeout_s=CLUSTER_PATIENCE_S))
    except Failure as failure:
        labels = f"{RUN_LABEL}={attempt.run_id},{ATTEMPT_LABEL}={attempt.number}"
        click.echo(
            f"warning: the cluster was not asked: {printable(failure.what)}; Jobs may remain: "
            f"kubectl get jobs -l {labels}",
            err=True,
        )
        return False
