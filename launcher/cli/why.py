"""`launcher why`: the state of a run in one sentence, and the next command."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.list import run_state
from launcher.cli.options import CLUSTER_PATIENCE_S, context_option, store_options
from launcher.cli.progress import detail
from launcher.outcome import Failure, Reason
from launcher.spec import site
from launcher.store.runs import RunView, StageStatus, find, view
from launcher.store.selection import open_named_store
from launcher.system.text import printable

_LOG_LINES_SHOWN = 12


@click.command("why")
@click.argument("run")
@context_option
@store_options
def command(run: str, context: str | None, store_address: str | None, site_path: Path | None) -> int:
    """Explain the state of RUN in one sentence, and print the next command."""
    store = open_named_store(store_address, site_path)
    seen = view(store, find(store, run))
    silent = _why_silent(seen, site_path, context)
    sentence, next_step = (printable(silent.what), silent.next_step) if silent else _explain(seen)
    click.echo(sentence)
    click.echo(f"next: {printable(next_step)}")
    failed = next((status for status in seen.stages if status.state == "failed"), None)
    if failed is not None and failed.tries:
        _show_log(seen, failed)
    return 0


def _why_silent(seen: RunView, site_path: Path | None, context: str | None) -> Failure | None:
    """Why a conductor in a cluster sends no heartbeats; None if it does, or if the reason is unknown."""
    if seen.outcome is not None or seen.attempt.target != "cluster" or seen.attempt.conductor_seen_recently:
        return None
    from launcher.targets.cluster.client import Cluster
    from launcher.targets.cluster.supervision import why_silent

    namespace = site.load(site_path).namespace
    if namespace is None:
        return None
    try:
        return why_silent(seen.attempt, Cluster.connect(namespace, context, timeout_s=CLUSTER_PATIENCE_S))
    except Failure as failure:
        click.echo(f"warning: the cluster was not asked: {failure.what}", err=True)
        return None


def _explain(seen: RunView) -> tuple[str, str]:
    run_id, state = seen.run_id, run_state(seen)
    failed = next((status for status in seen.stages if status.state == "failed"), None)
    if failed is not None and failed.failure is not None:
        tries = f" after {len(failed.tries)} tries" if len(failed.tries) > 1 else ""
        problems = "".join(f"; {problem}" for problem in failed.failure.problems)
        step = failed.failure.next_step
        return (
            printable(f"{failed.stage.name} failed{tries}: {failed.failure.what.rstrip('.')}{problems}."),
            step if f"launcher retry {run_id}" in step else f"{step}; then launcher retry {run_id}",
        )
    if state == Reason.SUCCEEDED.value:
        return (
            f"{run_id} has finished: {(seen.verdict or {}).get('summary', '')}",
            f"launcher report {run_id}",
        )
    if state == Reason.CANCELLED.value:
        return f"{run_id} was cancelled.", f"launcher retry {run_id}"
    if seen.outcome is not None:
        # The conductor failed, not a stage.
        ended = seen.outcome.failure or Failure(seen.outcome.reason, seen.outcome.reason.value)
        return (
            printable(
                f"{run_id} ended: {ended.what.rstrip('.')}{''.join(f'; {one}' for one in ended.problems)}."
            ),
            f"{ended.next_step}; then launcher retry {run_id}",
        )
    running = [status for status in seen.stages if status.state == "running"]
    stuck = [(status.stage.name, status.note) for status in running if status.note]
    if stuck:
        # A note with a next step is the cause; a pod that cannot be scheduled may be a consequence of it.
        name, note = min(stuck, key=lambda one: not one[1].next_step)
        return (
            printable(f"{name} is stuck: {note.what}"),
            note.next_step or f"kubectl describe pods -l tuneyard.dev/run={run_id},tuneyard.dev/stage={name}",
        )
    if running:
        shown = ", ".join(f"{status.stage.name} ({detail(status) or 'starting'})" for status in running)
        return f"{run_id} is running: {shown}.", f"launcher logs {run_id} -f"
    if state == "stopped" and seen.attempt.target == "cluster":
        return (
            f"The conductor of {run_id} has sent no heartbeat for two minutes.",
            f"kubectl get jobs,pods -l tuneyard.dev/run={run_id}; submit the same experiment again to continue",
        )
    if state == "stopped":
        return (
            f"{run_id} is stopped: its conductor was killed.",
            "submit the same experiment again",
        )
    return f"{run_id} is about to start its next stage.", f"launcher status {run_id}"


def _show_log(seen: RunView, failed: StageStatus) -> None:
    path = seen.attempt.log(failed.stage.name, failed.tries[-1].number)
    if path is not None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        click.echo(f"\nlast lines of {path}:", err=True)
        for line in lines:
            click.echo(f"  {printable(line)}", err=True)
