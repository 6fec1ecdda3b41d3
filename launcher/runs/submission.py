"""From a plan to a run that is under way: preflight, inputs pushed, plan stored, attempt opened, conductor started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.costs import budget
from launcher.costs.estimate import StageEstimate, another_way, estimate, impossible, refuse_impossible
from launcher.costs.token_counts import count_tokens
from launcher.manifests.render import request
from launcher.outcome import Failure, Reason
from launcher.spec import catalog
from launcher.spec.catalog import Prices
from launcher.spec.placement import placed
from launcher.spec.plan import Plan, Stage, needs_torch
from launcher.spec.site import Site
from launcher.spec.stages import FetchSettings, HostedPredictSettings, HubModel, PackagedModel, TuneSettings
from launcher.store import Store
from launcher.store.runs import Attempt, attempts, read_plan

_HEAVY_MODULES = ("torch", "transformers", "peft", "deepspeed", "safetensors")
_SCORING_MODULES = ("sqlglot", "apsw")
#: What a fetch takes besides large weights: download, scratch, a small model in float32.
_FETCH_FREE_BYTES = 3 << 30
#: Weights on the hub are in 16 bits.
_HUB_BYTES_PER_PARAMETER = 2
_MINIMUM_FREE_BYTES = 64 << 20


def preflight_local(plan: Plan, store: Store, prices: Prices | None = None) -> None:
    """Refuse before anything runs what cannot end well here; all problems at once.

    `prices` are the catalogue's unless the site has its own.
    """
    problems: list[str] = []
    open_stages = _open_stages(plan, store)
    if any(needs_torch(stage) for stage in open_stages):
        missing = [name for name in _HEAVY_MODULES if importlib.util.find_spec(name) is None]
        if missing:
            problems.append(f"not installed: {', '.join(missing)} (pip install 'tuneyard[jobs]')")
    if any(stage.kind == "score" for stage in open_stages):
        missing = [name for name in _SCORING_MODULES if importlib.util.find_spec(name) is None]
        if missing:
            problems.append(f"not installed: {', '.join(missing)} (pip install 'tuneyard[score]')")
    problems += _hosted_problems(open_stages)
    gpus = sorted({stage.resources.device for stage in open_stages if stage.resources.gpus})
    if gpus and not Path("/dev/nvidiactl").exists():
        problems.append(f"this machine has no NVIDIA driver, and the plan asks for {', '.join(gpus)}")
    undoable = _undoable(plan, open_stages, prices)
    problems += impossible(undoable)
    if problems:
        raise Failure(
            Reason.UNSUPPORTED,
            "this machine cannot run the plan",
            where=plan.run_id,
            problems=tuple(problems),
            next_step=another_way(plan, undoable) if undoable else "launcher doctor",
        )
    needed = _MINIMUM_FREE_BYTES + sum(_fetched_bytes(stage) for stage in open_stages)
    free = shutil.disk_usage(store.local_root).free
    if free < needed:
        raise Failure(
            Reason.DISK_FULL,
            f"{free / 2**30:.1f} GiB free, the run needs about {needed / 2**30:.1f} GiB",
            where=store.address,
            next_step="free space or name another --store",
        )


def preflight_anywhere(plan: Plan, store: Store, prices: Prices) -> None:
    """Refuse what is left to do of a plan and can end well on no machine (see `refuse_impossible`)."""
    refuse_impossible(plan, _undoable(plan, _open_stages(plan, store), prices))


def _open_stages(plan: Plan, store: Store) -> list[Stage]:
    """What is left to do: a finished stage asks for nothing any more."""
    return [stage for stage in plan.stages if not store.exists(f"stages/{stage.key}")]


def _undoable(plan: Plan, stages: list[Stage], prices: Prices | None) -> list[StageEstimate]:
    names = {stage.name for stage in stages}
    return [one for one in estimate(plan, None, prices) if one.problem and one.stage in names]


def _fetched_bytes(stage: Stage) -> int:
    """About what a fetch stage needs on the disk while it works; nothing for what is not downloaded."""
    settings = stage.typed_settings()
    if not isinstance(settings, FetchSettings) or not isinstance(settings.source, HubModel | PackagedModel):
        return 0
    if isinstance(settings.source, PackagedModel):
        return _FETCH_FREE_BYTES
    repository = settings.source.repository
    known = [m.shape for m in catalog.models().values() if m.source.get("repository") == repository]
    return _FETCH_FREE_BYTES + (_HUB_BYTES_PER_PARAMETER * known[0].parameters if known else 0)


def _hosted_problems(stages: list[Stage]) -> list[str]:
    """Why hosted models cannot be asked from here: packages, the key."""
    problems: dict[str, None] = {}
    wanted: set[str] = set()
    for stage in stages:
        settings = stage.typed_settings()
        if not isinstance(settings, TuneSettings | HostedPredictSettings):
            continue
        wanted |= {"openai"} if settings.rehearsal is None else {"openai", "starlette", "uvicorn"}
        if settings.rehearsal is None and not os.environ.get("OPENAI_API_KEY", "").strip():
            problems["no API key for the hosted models: export OPENAI_API_KEY=…"] = None
    missing = sorted(name for name in wanted if importlib.util.find_spec(name) is None)
    if missing:
        problems[f"not installed: {', '.join(missing)} (pip install 'tuneyard[hosted,jobs]')"] = None
    return list(problems)


def push_inputs(plan: Plan, store: Store, locations: dict[str, Path]) -> None:
    """Copy every outside file of the plan to the store.

    Raises Failure(MISSING_INPUT) listing what is nowhere, Failure(BAD_DATA) for data that `prepare` would refuse.
    """
    # Before the first attempt only: what names a run's data is its content, which was good then.
    if plan.stage("prepare").inputs and not attempts(store, plan.run_id):
        count_tokens(plan, locations)
    wanted = {sha256: name for stage in plan.stages for name, sha256 in stage.inputs.items()}
    missing = []
    for sha256, name in sorted(wanted.items(), key=lambda item: item[1]):
        if store.has_input(sha256):
            continue
        source = locations.get(sha256)
        if source is None:
            missing.append(f"{name} (sha256 {sha256[:12]}…)")
        elif store.put_input(source) != sha256:
            raise Failure(Reason.BAD_DATA, "the file changed after it was locked", where=str(source))
    if missing:
        raise Failure(
            Reason.MISSING_INPUT,
            "outside files are neither here nor in the store",
            where=plan.run_id,
            problems=tuple(missing),
            next_step="name their directory: --data DIR",
        )


def open_attempt(
    plan: Plan, store: Store, *, target: str, site: Site, budget_usd: float | None = None
) -> Attempt:
    """The newest attempt at the run, open or closed; the first is opened here. Safe to call twice at once."""
    attempt = newest_attempt(store, plan.run_id)
    attempt.record(plan, _request(target, site, budget_usd))
    return attempt


def newest_attempt(store: Store, run_id: str) -> Attempt:
    """The newest attempt, or the first one where there is none yet."""
    known = attempts(store, run_id)
    return Attempt(store, run_id, known[-1] if known else 1)


@dataclass(frozen=True)
class NextAttempt:
    """An attempt that nobody has opened yet, for whoever looks first whether it can end well."""

    attempt: Attempt
    plan: Plan
    target: str
    site: Site
    budget_usd: float | None

    def open(self) -> Attempt:
        """Write it down: from now on it is the run's newest attempt. Safe to call twice at once."""
        self.attempt.record(self.plan, _request(self.target, self.site, self.budget_usd))
        return self.attempt


def next_attempt(
    store: Store,
    run_id: str,
    *,
    site: Site,
    target: str | None = None,
    budget_usd: float | None = None,
    sets: tuple[str, ...] = (),
) -> NextAttempt:
    """Another attempt at a run whose last one is closed without success; `open` opens it.

    Target and cap are the last attempt's, unless others are named; what was spent before counts. `sets` give
    the stages another placement (see `launcher.spec.placement`).
    Raises Failure(USAGE) where the last attempt is still open or has succeeded.
    """
    last = newest_attempt(store, run_id)
    outcome = last.outcome
    if outcome is None:
        raise Failure(
            Reason.USAGE,
            f"attempt {last.number} is still open",
            where=run_id,
            next_step=f"launcher status {run_id}",
        )
    if outcome["reason"] == Reason.SUCCEEDED.value:
        raise Failure(
            Reason.USAGE, "the run has succeeded", where=run_id, next_step=f"launcher report {run_id}"
        )
    return NextAttempt(
        attempt=Attempt(store, run_id, last.number + 1),
        plan=placed(read_plan(store, run_id, last.number), sets),
        target=target or last.target,
        site=site,
        budget_usd=budget.budget_usd(last) if budget_usd is None else budget_usd,
    )


def _request(target: str, site: Site, budget_usd: float | None) -> dict[str, Any]:
    return {**request(site, budget_usd), "target": target, "opened_at": time.time()}
