"""Stage kind `train`: one adapter, from the newest committed checkpoint to the committed outputs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from jobs.methods import checkpoint
from jobs.methods.rendezvous import First, Other, Peers
from jobs.methods.sft import Job, StoppedAtStep, train
from jobs.nodes import first_node, node_count
from jobs.stage import StageContext, Stopped
from launcher.outcome import Failure, Reason
from launcher.spec.stages import FetchSettings, HubModel, PackagedModel, TrainSettings
from launcher.store.background_commits import BackgroundCommits


def run(context: StageContext) -> None:
    """Train with as many workers as the plan says, on one node or on several; a single one needs no process."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, TrainSettings)
    nodes = node_count()
    if settings.processes % nodes:
        raise Failure(
            Reason.USAGE, f"{settings.processes} workers cannot be shared out evenly to {nodes} nodes"
        )
    peers = _meet(context, nodes) if nodes > 1 else None
    continued = _continued(context, peers)
    job = Job(
        settings=settings,
        model=context.input("model").directory(),
        data=context.input("data").directory(),
        out=context.out,
        scratch=context.scratch,
        checkpoint=context.store.open(context.work_path(continued)).directory() if continued else None,
        base=_base_name(context),
        rendezvous=_rendezvous() if peers else None,
    )
    context.meta["resumed"] = job.checkpoint is not None
    context.check_stop()
    commits = BackgroundCommits(context.store, context.scratch)
    try:
        _train(job, ContextReporter(context, commits), context, nodes, peers)
    except StoppedAtStep:
        commits.drain()
        raise Stopped from None
    except Failure:
        _save_what_is_there(commits)
        raise
    commits.drain()
    if isinstance(peers, Other):
        peers.wait_for_commit(context.check_stop)


def _train(
    job: Job, reporter: ContextReporter, context: StageContext, nodes: int, peers: Peers | None
) -> None:
    if job.workers == 1:
        _in_this_process(job, reporter)
        return
    from jobs.methods.worker_pool import train_with_workers

    count = job.workers // nodes
    train_with_workers(job, context, reporter, count=count, first_rank=context.node * count, peers=peers)


def _save_what_is_there(commits: BackgroundCommits) -> None:
    """The next try continues from the newest checkpoint that was handed over, whatever ended this one."""
    try:
        commits.drain()
    except Failure as failure:
        print(f"warning: the newest checkpoint was not stored: {failure.what}", file=sys.stderr, flush=True)


def _meet(context: StageContext, nodes: int) -> Peers:
    """This node's side of the meeting, which lasts until the stage's outputs are committed."""
    host, port = first_node()
    if context.node == 0:
        return context.until_commit.enter_context(First(nodes - 1, port, context.stage.key))
    return context.until_commit.enter_context(Other(context.node, (host, port), context.stage.key))


def _continued(context: StageContext, peers: Peers | None) -> str | None:
    """The checkpoint to continue from: the newest that is committed; of several nodes the first one decides."""
    if isinstance(peers, Other):
        name = peers.join(context.check_stop)["checkpoint"]
        return None if name is None else str(name)
    names = checkpoint.committed(context.store, context.work_path(""))
    newest = names[-1] if names else None
    if peers:
        peers.assemble({"checkpoint": newest}, context.check_stop)
    return newest


def _rendezvous() -> str:
    """Where the workers meet: at the first of them, one port above the meeting of the stage's processes."""
    host, port = first_node()
    return f"tcp://{host}:{port + 1}"


class ContextReporter:
    """Says what happens to the stage's context. Checkpoints are uploaded beside the work."""

    def __init__(self, context: StageContext, commits: BackgroundCommits) -> None:
        self._context = context
        self._commits = commits

    @property
    def stop_requested(self) -> bool:
        return self._context.stop_requested

    def heartbeat(self, step: int, total: int, measures: dict[str, float]) -> None:
        self._context.heartbeat(step, total, "step", **measures)

    def checkpoint(self, directory: Path, step: int) -> None:
        store, work, kept = self._context.store, self._context.work_path(""), checkpoint.name(step)
        # Only then: the newest committed one must never be gone.
        then = partial(checkpoint.remove_older, store, work, kept)
        self._commits.submit(f"{work}/{kept}", directory, {"step": step}, then)

    def facts(self, measured: dict[str, Any]) -> None:
        self._context.meta.update(measured)


def _in_this_process(job: Job, reporter: ContextReporter) -> None:
    import torch

    try:
        train(job, reporter)
    except torch.OutOfMemoryError:
        raise Failure(Reason.OUT_OF_MEMORY, "the device ran out of memory while training") from None


def _base_name(context: StageContext) -> dict[str, str]:
    """Which model the adapter is for, as peft's config names it; never a path of this machine."""
    fetch = context.plan.stage(context.stage.needs["model"]).typed_settings()
    assert isinstance(fetch, FetchSettings)
    source = fetch.source
    if isinstance(source, HubModel):
        return {"base_model_name_or_path": source.repository, "revision": source.revision}
    if isinstance(source, PackagedModel):
        return {"base_model_name_or_path": source.requirement, "revision": source.sha256}
    return {"base_model_name_or_path": source.kind}
