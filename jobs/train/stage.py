"""Stage kind `train`: one adapter, from the newest committed checkpoint to the committed outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.stage import StageContext
from jobs.train import checkpoint
from jobs.train.trainer import Job, StoppedAtStep, train
from launcher.outcome import Failure, Reason
from launcher.stages import FetchSettings, HubModel, PackagedModel, TrainSettings


def run(context: StageContext) -> None:
    """Train with as many workers as the plan says; one of them needs no process besides this."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, TrainSettings)
    job = Job(
        settings=settings,
        model=context.input("model").directory(),
        data=context.input("data").directory(),
        out=context.out,
        scratch=context.scratch,
        checkpoint=_newest_checkpoint(context),
        base=_base_name(context),
    )
    context.meta["resumed"] = job.checkpoint is not None
    context.check_stop()
    try:
        if job.workers == 1:
            _in_this_process(job, context)
        else:
            from jobs.train.workers import train_with_workers

            train_with_workers(job, context)
    except StoppedAtStep:
        context.check_stop()
        raise


class ContextReporter:
    """Says what happens to the stage's context."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    @property
    def stop_requested(self) -> bool:
        return self._context.stop_requested

    def heartbeat(self, step: int, total: int, measures: dict[str, float]) -> None:
        self._context.heartbeat(step, total, "step", **measures)

    def checkpoint(self, directory: Path, step: int) -> None:
        checkpoint.commit(self._context.store, self._context.work_path(""), directory, step)

    def facts(self, measured: dict[str, Any]) -> None:
        self._context.meta.update(measured)


def _in_this_process(job: Job, context: StageContext) -> None:
    import torch

    try:
        train(job, ContextReporter(context))
    except torch.OutOfMemoryError:
        raise Failure(Reason.OUT_OF_MEMORY, "the device ran out of memory while training") from None


def _newest_checkpoint(context: StageContext) -> Path | None:
    names = checkpoint.committed(context.store, context.work_path(""))
    return context.store.open(context.work_path(names[-1])).directory() if names else None


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
