"""`launcher logs`: the log of a stage, from the store or from its pod."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from launcher.cli.options import context_option, store_options
from launcher.outcome import Failure, Reason
from launcher.spec import site
from launcher.spec.site import Site
from launcher.store.runs import RunView, StageStatus, find, view
from launcher.store.selection import open_named_store


@click.command("logs")
@click.argument("run")
@click.option(
    "--stage", "stage_name", help="Name of the stage.  [default: the running one, else the last one started]"
)
@click.option("--try", "number", type=int, help="Number of the try.  [default: the last]")
@click.option("--follow", "-f", is_flag=True, help="Continue to print until the stage has ended.")
@context_option
@store_options
def command(
    run: str,
    stage_name: str | None,
    number: int | None,
    follow: bool,
    context: str | None,
    store_address: str | None,
    site_path: Path | None,
) -> int:
    """Print the log of a stage of RUN: from the store, or from its pod while it runs."""
    store = open_named_store(store_address, site_path)
    seen = view(store, find(store, run))
    status = _choose(seen, stage_name)
    number = number or status.tries[-1].number
    in_pod = seen.attempt.target == "cluster" and _runs(seen, status.stage.name, number)
    path = None if in_pod else seen.attempt.log(status.stage.name, number)
    click.echo(f"{seen.run_id} {status.stage.name}, try {number}", err=True)
    if in_pod:
        _print_pods(seen, status.stage.name, number, follow, site.load(site_path), context)
        return 0
    if path is None:
        raise Failure(
            Reason.NOT_FOUND,
            f"there is no log of try {number} here (on another machine it is stored when the try ends)",
            where=status.stage.name,
        )
    with path.open("rb") as stream:
        while True:
            # Read the state before the log, so that the last lines are not missed.
            running = _runs(view(store, seen.run_id), status.stage.name, number)
            while chunk := stream.read(1 << 16):
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            if not (follow and running):
                return 0
            time.sleep(0.2)


def _print_pods(
    seen: RunView, stage: str, number: int, follow: bool, facts: Site, context: str | None
) -> None:
    """Print the logs of the pods of a running try; with `follow`, until it has ended."""
    from launcher.manifests.labels import ATTEMPT_LABEL, RUN_LABEL, STAGE_LABEL, TRY_LABEL
    from launcher.targets.cluster import pod_logs
    from launcher.targets.cluster.client import Cluster

    cluster = Cluster.connect(facts.namespace, context)
    labels = {
        RUN_LABEL: seen.run_id,
        ATTEMPT_LABEL: str(seen.attempt.number),
        STAGE_LABEL: stage,
        TRY_LABEL: str(number),
    }

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    if follow:
        pod_logs.follow(
            cluster,
            labels,
            "stage",
            write,
            ended=lambda: not _runs(view(seen.store, seen.run_id), stage, number),
        )
        return
    for pod in cluster.list("Pod", labels=labels):
        write(pod_logs.whole(cluster, pod["metadata"]["name"], "stage"))


def _choose(seen: RunView, name: str | None) -> StageStatus:
    if name is not None:
        seen.plan.stage(name)  # raises Failure if the plan has no such stage
        status = next(status for status in seen.stages if status.stage.name == name)
        if not status.tries:
            raise Failure(
                Reason.NOT_FOUND,
                f"{name} was not started in attempt {seen.attempt.number}: {status.state}",
                where=seen.run_id,
                next_step=f"launcher status {seen.run_id}",
            )
        return status
    started = [status for status in seen.stages if status.tries]
    if not started:
        raise Failure(
            Reason.NOT_FOUND,
            "no stage has started yet",
            where=seen.run_id,
            next_step=f"launcher status {seen.run_id}",
        )
    return max(started, key=lambda status: (status.state == "running", status.tries[-1].started_at))


def _runs(seen: RunView, name: str, number: int) -> bool:
    status = next(status for status in seen.stages if status.stage.name == name)
    return status.state == "running" and status.tries[-1].number == number
