"""Stage kind `train`: one adapter, from the newest committed checkpoint to the outputs in `context.out`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from jobs.methods import checkpoint
from jobs.methods.rendezvous import Rendezvous, RendezvousClient, RendezvousServer
from jobs.methods.sft import train
from jobs.methods.training_facts import MeasuredTraining
from jobs.methods.training_job import StoppedAtStep, TrainingJob
from jobs.methods.worker_pool import WorkerPool
from jobs.models.adapters import BaseReference
from jobs.runtime.nodes import node_count, rendezvous_address
from jobs.stage import StageContext, Stopped
from launcher.outcome import Failure, Reason
from launcher.spec.stages import FetchSettings, HubModel, PackagedModel, TrainSettings
from launcher.store.background_commits import BackgroundCommits


def run(context: StageContext) -> None:
    """Train with the plan's number of workers on one node or several."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, TrainSettings)
    nodes = node_count()
    if settings.processes % nodes:
        raise Failure(
            Reason.USAGE, f"{settings.processes} workers cannot be divided evenly among {nodes} nodes"
        )
    rendezvous = _rendezvous(context, nodes) if nodes > 1 else None
    resumed = _newest_checkpoint(context, rendezvous)
    job = TrainingJob(
        settings=settings,
        model=context.input("model").directory(),
        data=context.input("data").directory(),
        out=context.out,
        scratch=context.scratch,
        checkpoint=context.store.open(context.work_path(resumed)).directory() if resumed else None,
        base=_base(context),
        rendezvous=_worker_rendezvous() if rendezvous else None,
    )
    context.meta["resumed"] = job.checkpoint is not None
    context.check_stop()
    commits = BackgroundCommits(context.store, context.scratch)
    try:
        _train(job, ContextReporter(context, commits), context.node, nodes, rendezvous)
    except StoppedAtStep:
        commits.drain()
        raise Stopped from None
    except Failure:
        _try_to_drain(commits)
        raise
    commits.drain()
    if isinstance(rendezvous, RendezvousClient):
        rendezvous.wait_for_commit(context.check_stop)


def _train(
    job: TrainingJob, reporter: ContextReporter, node: int, nodes: int, rendezvous: Rendezvous | None
) -> None:
    """A single worker runs in this process."""
    if job.workers == 1:
        import torch

        try:
            train(job, reporter)
        except torch.OutOfMemoryError:
            raise Failure(Reason.OUT_OF_MEMORY, "the device ran out of memory while training") from None
        return
    count = job.workers // nodes
    with WorkerPool(job, count=count, first_rank=node * count) as pool:
        pool.wait(reporter, rendezvous)


def _try_to_drain(commits: BackgroundCommits) -> None:
    """Commit the newest checkpoint for the next try, if the store allows it."""
    try:
        commits.drain()
    except Failure as failure:
        print(f"warning: the newest checkpoint was not stored: {failure.what}", file=sys.stderr, flush=True)


def _rendezvous(context: StageContext, nodes: int) -> Rendezvous:
    """This node's side of the rendezvous, open until the stage's outputs are committed."""
    host, port = rendezvous_address()
    if context.node == 0:
        return context.until_commit.enter_context(RendezvousServer(nodes - 1, port, context.stage.key))
    return context.until_commit.enter_context(RendezvousClient(context.node, (host, port), context.stage.key))


def _worker_rendezvous() -> str:
    """The rendezvous of the workers of all nodes: at worker 0, one port above that of the stage processes."""
    host, port = rendezvous_address()
    return f"tcp://{host}:{port + 1}"


def _newest_checkpoint(context: StageContext, rendezvous: Rendezvous | None) -> str | None:
    """The newest committed checkpoint; node 0's choice applies to all nodes."""
    if isinstance(rendezvous, RendezvousClient):
        return rendezvous.join(context.check_stop)
    names = checkpoint.committed(context.store, context.work_path(""))
    newest = names[-1] if names else None
    if rendezvous:
        rendezvous.start(newest, context.check_stop)
    return newest


class ContextReporter:
    """A Reporter that writes to the stage's context and commits checkpoints in the background."""

    def __init__(self, context: StageContext, commits: BackgroundCommits) -> None:
        self._context = context
        self._commits = commits

    @property
    def stop_requested(self) -> bool:
        return self._context.stop_requested

    def heartbeat(self, step: int, total: int, measures: dict[str, float]) -> None:
        self._context.heartbeat(step, total, "step", **measures)

    def checkpoint(self, directory: Path, step: int) -> None:
        store, work, name = self._context.store, self._context.work_path(""), checkpoint.name(step)
        # Older checkpoints are deleted only after this one is committed.
        then = partial(checkpoint.remove_older, store, work, name)
        self._commits.submit(f"{work}/{name}", directory, {"step": step}, then)

    def measured(self, facts: MeasuredTraining) -> None:
        self._context.meta.update(facts.to_json())


def _base(context: StageContext) -> BaseReference:
    """The adapter's base model by its public name, never by a path of this machine."""
    fetch = context.plan.stage(context.stage.needs["model"]).typed_settings()
    assert isinstance(fetch, FetchSettings)
    source = fetch.source
    if isinstance(source, HubModel):
        return BaseReference(source.repository, source.revision)
    if isinstance(source, PackagedModel):
        return BaseReference(source.requirement, source.sha256)
    return BaseReference(source.kind)
