"""Garbage collection: old runs, stages that no kept run uses, and what crashes left.

`plan_gc` decides and `delete` deletes, so that a dry run shows exactly what would be deleted. Runs that are under
way are never touched, nor stages and inputs of kept runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from launcher.outcome import Failure
from launcher.spec.plan import Plan
from launcher.store import Leftover, Store
from launcher.store.lease import stage_lease
from launcher.store.runs import Attempt, attempts, read_plan, run_ids

#: A commit that is under way looks like a leftover until it has been unchanged for this long.
LEFTOVER_GRACE_S = 24 * 3600.0


@dataclass(frozen=True)
class Deletion:
    """One thing to delete: store path, bytes and reason."""

    path: str
    size_bytes: int
    why: str
    leftover: Leftover | None = None


@dataclass
class GcPlan:
    """What to delete, what is kept and why, and what could not be read."""

    deletions: list[Deletion] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.deletions)


@dataclass(frozen=True)
class _Run:
    run_id: str
    plan: Plan
    attempt: Attempt
    seen_at: float
    live: bool
    verdict: dict[str, Any] | None

    @property
    def keys(self) -> set[str]:
        return {stage.key for stage in self.plan.stages}

    @property
    def inputs(self) -> set[str]:
        return {sha256 for stage in self.plan.stages for sha256 in stage.inputs.values()}


def plan_gc(store: Store, *, older_than_s: float, keep_best: bool, now: float | None = None) -> GcPlan:
    """What can be deleted from a store; changes nothing."""
    now = time.time() if now is None else now
    found = GcPlan()
    runs = _runs(store, found, now, older_than_s)
    best = _best(runs, found) if keep_best else {}
    for run in runs:
        if run.run_id in found.kept:
            continue
        if run.live:
            found.kept[run.run_id] = "under way"
        elif now - run.seen_at < older_than_s:
            found.kept[run.run_id] = "young"
        elif run.run_id in best:
            found.kept[run.run_id] = f"best of {best[run.run_id]}"
    kept = [run for run in runs if run.run_id in found.kept]
    gone = [run for run in runs if run.run_id not in found.kept]
    for run in gone:
        size = store.usage(f"runs/{run.run_id}")
        found.deletions.append(
            Deletion(f"runs/{run.run_id}", size, f"not used for {_age(now - run.seen_at)}")
        )
    for run in kept:
        if not run.live:
            found.deletions += _finished_work(store, run)
    if found.problems:
        # A run that cannot be read may use any stage.
        found.problems.append("all stages and inputs are kept, because not every run could be read")
    else:
        found.deletions += _unused(store, kept, gone, now, older_than_s)
    found.deletions += [
        Deletion(one.path, one.size_bytes, f"left by a crash {_age(now - one.modified_at)} ago", one)
        for one in store.leftovers()
        if now - one.modified_at > LEFTOVER_GRACE_S
    ]
    return found


def delete(store: Store, found: GcPlan, *, older_than_s: float, keep_best: bool) -> list[Deletion]:
    """Delete what `found` lists, unless it is in use by now; returns what was deleted."""
    still = {one.path for one in plan_gc(store, older_than_s=older_than_s, keep_best=keep_best).deletions}
    gone = []
    for one in found.deletions:
        if one.path not in still:
            continue
        if one.leftover is not None:
            store.discard(one.leftover)
        else:
            store.delete(one.path)
        gone.append(one)
    return gone


def run_size_bytes(store: Store, plan: Plan) -> int:
    """Bytes of a run: its own records and work, and its stages' artifacts, shared ones counted whole."""
    total = store.usage(f"runs/{plan.run_id}")
    for key in {stage.key for stage in plan.stages}:
        if store.exists(f"stages/{key}"):
            total += store.open(f"stages/{key}").manifest.size_bytes
    return total


def _runs(store: Store, found: GcPlan, now: float, older_than_s: float) -> list[_Run]:
    runs = []
    for run_id in run_ids(store):
        try:
            plan = read_plan(store, run_id)
            known = attempts(store, run_id)
            attempt = Attempt(store, run_id, known[-1] if known else 1)
            seen_at = max((_last_sign(Attempt(store, run_id, n), plan) for n in known), default=now)
            closed = attempt.outcome is not None
            verdict = attempt.get("verdict.json")
        except Failure as failure:
            found.kept[run_id] = "cannot be read"
            found.problems.append(f"{run_id}: {failure.what}")
            continue
        # A conductor on another machine is known by its records: an open attempt is live while they are young.
        young = now - seen_at < max(older_than_s, LEFTOVER_GRACE_S)
        live = attempt.has_live_conductor or (not closed and young)
        runs.append(
            _Run(run_id, plan, attempt, seen_at, live, verdict if isinstance(verdict, dict) else None)
        )
    return runs


def _last_sign(attempt: Attempt, plan: Plan) -> float:
    """Time of the newest record of an attempt, in seconds since 1970."""
    signs = [attempt.request.opened_at, attempt.outcome.ended_at if attempt.outcome else 0.0]
    for one in attempt.tries():
        signs += [one.started_at, one.end.ended_at if one.end else 0.0]
    for stage in plan.stages:
        if heartbeat := attempt.heartbeat(stage.name):
            signs.append(heartbeat.at)
    return max(signs)


def _best(runs: list[_Run], found: GcPlan) -> dict[str, str]:
    """Run id -> experiment, for the best run of each experiment and data source. A malformed verdict is a problem."""
    best: dict[tuple[str, str], tuple[float, str]] = {}
    for run in runs:
        if run.verdict is None:
            continue
        try:
            results = run.verdict["results"]
            value = float(max(one["measures"][results["primary"]]["value"] for one in results["contenders"]))
            group = (str(results["experiment"]), str(results["data"]["source"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            found.kept[run.run_id] = "cannot be read"
            found.problems.append(f"{run.run_id}: verdict.json is malformed")
            continue
        best[group] = max(best.get(group, (-1.0, "")), (value, run.run_id))
    return {run_id: experiment for (experiment, _), (_, run_id) in best.items()}


def _finished_work(store: Store, run: _Run) -> list[Deletion]:
    """Checkpoints and ledgers of committed stages; nothing resumes from them."""
    found = []
    for stage in run.plan.stages:
        path = f"runs/{run.run_id}/work/{stage.name}"
        if store.list(path) and store.exists(f"stages/{stage.key}") and (size := store.usage(path)):
            found.append(Deletion(path, size, f"{stage.name} is finished"))
    return found


def _unused(
    store: Store, kept: list[_Run], gone: list[_Run], now: float, older_than_s: float
) -> list[Deletion]:
    used = {key for run in kept for key in run.keys}
    found = []
    for key in store.list("stages"):
        path = f"stages/{key}"
        if key in used or not store.exists(path):
            continue
        meta = store.open(path).manifest.meta
        age_s = now - float(meta.get("started_at", 0.0)) - float(meta.get("seconds", 0.0))
        if age_s >= older_than_s:
            found.append(Deletion(path, store.usage(path), "no kept run uses it"))
    for key in store.list("leases"):
        if key not in used and not store.exists(f"stages/{key}") and _lease_age_s(store, key) >= older_than_s:
            path = stage_lease(key)
            found.append(Deletion(path, store.usage(path), "no kept run uses it"))
    wanted = {sha256 for run in kept for sha256 in run.inputs}
    for sha256 in sorted({sha256 for run in gone for sha256 in run.inputs} - wanted):
        if store.has_input(sha256):
            found.append(
                Deletion(f"inputs/{sha256}", store.usage(f"inputs/{sha256}"), "no kept run reads it")
            )
    return found


def _lease_age_s(store: Store, key: str) -> float:
    """Seconds since the stage's lease was taken or renewed; 0 if it is being deleted."""
    ages_s = [store.age_s(f"{stage_lease(key)}/{name}") for name in store.list(stage_lease(key))]
    return min((age_s for age_s in ages_s if age_s is not None), default=0.0)


def _age(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.0f} hours"
