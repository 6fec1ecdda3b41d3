"""Checks of a plan before a run starts: what no machine can carry out, and what this machine lacks."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from launcher.costs.estimate import StageEstimate, another_way, estimate, impossible, refuse_impossible
from launcher.outcome import Failure, Reason
from launcher.spec import catalog
from launcher.spec.catalog import Prices
from launcher.spec.plan import Plan, Stage, needs_torch
from launcher.spec.providers import stage_provider
from launcher.spec.stages import FetchSettings, HostedPredictSettings, HubModel, PackagedModel, TuneSettings
from launcher.store import Store

_HEAVY_MODULES = ("torch", "transformers", "peft", "deepspeed", "safetensors")
_SCORING_MODULES = ("sqlglot", "apsw")
#: What a fetch takes besides large weights: download, scratch, a small model in float32.
_FETCH_FREE_BYTES = 3 << 30
#: Weights on the hub are in 16 bits.
_HUB_BYTES_PER_PARAMETER = 2
_MINIMUM_FREE_BYTES = 64 << 20


def require_possible(plan: Plan, store: Store, prices: Prices) -> None:
    """Raises Failure for unfinished stages that no machine can carry out (see `refuse_impossible`)."""
    refuse_impossible(plan, _impossible_stages(plan, _open_stages(plan, store), prices))


def require_shared_store(store_address: str) -> None:
    """Raises Failure(UNSUPPORTED) for a store that pods cannot reach."""
    if not store_address.startswith("s3:"):
        raise Failure(
            Reason.UNSUPPORTED,
            "pods cannot reach a directory of this machine",
            where=f"--store {store_address}",
            next_step="name a store that both see, store.outside and store.inside (s3://…) in the site file; "
            "or run it on this machine: --target local",
        )


def require_this_machine(plan: Plan, store: Store, prices: Prices | None = None) -> None:
    """Raises one Failure with every reason why this machine cannot carry out the unfinished stages.

    `prices` default to the catalogue's.
    """
    open_stages = _open_stages(plan, store)
    problems = _missing_packages(open_stages)
    problems += _hosted_problems(open_stages)
    gpus = sorted({stage.resources.device for stage in open_stages if stage.resources.gpus})
    if gpus and not Path("/dev/nvidiactl").exists():
        problems.append(f"this machine has no NVIDIA driver, and the plan asks for {', '.join(gpus)}")
    impossible_stages = _impossible_stages(plan, open_stages, prices)
    problems += impossible(impossible_stages)
    if problems:
        raise Failure(
            Reason.UNSUPPORTED,
            "this machine cannot run the plan",
            where=plan.run_id,
            problems=tuple(problems),
            next_step=another_way(plan, impossible_stages) if impossible_stages else "launcher doctor",
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


def _missing_packages(stages: list[Stage]) -> list[str]:
    problems = []
    if any(needs_torch(stage) for stage in stages) and (missing := _not_installed(_HEAVY_MODULES)):
        problems.append(f"not installed: {', '.join(missing)} (pip install 'tuneyard[jobs]')")
    if any(stage.kind == "score" for stage in stages) and (missing := _not_installed(_SCORING_MODULES)):
        problems.append(f"not installed: {', '.join(missing)} (pip install 'tuneyard[score]')")
    return problems


def _not_installed(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _open_stages(plan: Plan, store: Store) -> list[Stage]:
    """The stages whose output is not in the store."""
    return [stage for stage in plan.stages if not store.exists(f"stages/{stage.key}")]


def _impossible_stages(plan: Plan, stages: list[Stage], prices: Prices | None) -> list[StageEstimate]:
    names = {stage.name for stage in stages}
    return [one for one in estimate(plan, None, prices) if one.problem and one.stage in names]


def _fetched_bytes(stage: Stage) -> int:
    """Disk space that a fetch stage needs, about; 0 if it downloads nothing."""
    settings = stage.typed_settings()
    if not isinstance(settings, FetchSettings) or not isinstance(settings.source, HubModel | PackagedModel):
        return 0
    if isinstance(settings.source, PackagedModel):
        return _FETCH_FREE_BYTES
    repository = settings.source.repository
    known = [m.shape for m in catalog.models().values() if m.source.get("repository") == repository]
    return _FETCH_FREE_BYTES + (_HUB_BYTES_PER_PARAMETER * known[0].parameters if known else 0)


def _hosted_problems(stages: list[Stage]) -> list[str]:
    """What this machine lacks for hosted models: packages, the API key."""
    problems: dict[str, None] = {}
    wanted: set[str] = set()
    for stage in stages:
        settings = stage.typed_settings()
        if not isinstance(settings, TuneSettings | HostedPredictSettings):
            continue
        wanted |= {"openai"} if settings.rehearsal is None else {"openai", "starlette", "uvicorn"}
        variable = stage_provider(settings.provider, rehearsed=settings.rehearsal is not None).key_variable
        if variable is not None and not os.environ.get(variable, "").strip():
            problems[f"no API key for the hosted models: export {variable}=…"] = None
    if missing := _not_installed(tuple(sorted(wanted))):
        problems[f"not installed: {', '.join(missing)} (pip install 'tuneyard[hosted,jobs]')"] = None
    return list(problems)
