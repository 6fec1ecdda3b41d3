"""What may go from a store: runs nobody needs any more, stages no kept run reaches, what crashes left.

Deciding (`survey`) and doing (`clear`) are apart, so that a dry run shows exactly what would go.
A run that is under way is never touched, and no stage or input that a kept run reaches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from launcher.outcome import Failure
from launcher.spec.plan import Plan
from launcher.store import Leftover, Store
from launcher.store.runs import Attempt, attempts, read_plan, run_ids

#: A commit that is under way looks like a leftover; one of which nothing moved for a day does not.
LEFTOVER_GRACE_S = 24 * 3600.0


@dataclass(frozen=True)
class Doomed:
    """One thing to delete: its store path, its bytes and why nobody needs it."""

    path: str
    size_bytes: int
    why: str
    leftover: Leftover | None = None


@dataclass
class Survey:
    """What would go, what stays and why, and what could not be judged."""

    doomed: list[Doomed] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.doomed)


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


def survey(store: Store, *, older_than_s: float, keep_best: bool, now: float | None = None) -> Survey:
    """What a store could lose. Touches nothing."""
    now = time.time() if now is None else now
    found = Survey()
    runs = _runs(store, found, now, older_than_s)
    best = _best(runs) if keep_best else {}
    for run in runs:
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
        found.doomed.append(Doomed(f"runs/{run.run_id}", size, f"not used for {_age(now - run.seen_at)}"))
    for run in kept:
        if not run.live:
            found.doomed += _finished_work(store, run)
    if found.problems:
        # Whoever cannot be read may need any stage.
        found.problems.append("stages and inputs are all kept, because not every run could be read")
    else:
        found.doomed += _unreached(store, kept, gone, now, older_than_s)
    found.doomed += [
        Doomed(one.path, one.size_bytes, f"left by a crash {_age(now - one.modified_at)} ago", one)
        for one in store.leftovers()
        if now - one.modified_at > LEFTOVER_GRACE_S
    ]
    return found


def clear(store: Store, found: Survey, *, older_than_s: float, keep_best: bool) -> list[Doomed]:
    """Delete what `found` lists, as far as it would still be listed now; returns what went."""
    still = {one.path for one in survey(store, older_than_s=older_than_s, keep_best=keep_best).doomed}
    gone = []
    for one in found.doomed:
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


def _runs(store: Store, found: Survey, now: float, older_than_s: float) -> list[_Run]:
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
        # A conductor elsewhere shows itself by its records: an open attempt lives while they are young.
        young = now - seen_at < max(older_than_s, LEFTOVER_GRACE_S)
        live = attempt.has_live_conductor or (not closed and young)
        runs.append(
            _Run(run_id, plan, attempt, seen_at, live, verdict if isinstance(verdict, dict) else None)
        )
    return runs


def _last_sign(attempt: Attempt, plan: Plan) -> float:
    """When anything was last recorded in an attempt, in seconds since 1970."""
    signs = [attempt.request.opened_at, attempt.outcome.ended_at if attempt.outcome else 0.0]
    for one in attempt.tries():
        signs += [one.started_at, one.end.ended_at if one.end else 0.0]
    for stage in plan.stages:
        if heartbeat := attempt.heartbeat(stage.name):
            signs.append(heartbeat.at)
    return max(signs)


def _best(runs: list[_Run]) -> dict[str, str]:
    """Run id -> experiment, for the run with the highest accuracy of each experiment and data source."""
    best: dict[tuple[str, str], tuple[float, str]] = {}
    for run in runs:
        if run.verdict is None:
            continue
        results = run.verdict["results"]
        value = max(one["measures"][results["primary"]]["value"] for one in results["contenders"])
        group = (results["experiment"], results["data"]["source"])
        best[group] = max(best.get(group, (-1.0, "")), (float(value), run.run_id))
    return {run_id: experiment for (experiment, _), (_, run_id) in best.items()}


def _finished_work(store: Store, run: _Run) -> list[Doomed]:
    """Checkpoints and ledgers of stages that are committed: nothing resumes from them any more."""
    found = []
    for stage in run.plan.stages:
        path = f"runs/{run.run_id}/work/{stage.name}"
        if store.list(path) and store.exists(f"stages/{stage.key}") and (size := store.usage(path)):
            found.append(Doomed(path, size, f"{stage.name} is finished"))
    return found


def _unreached(
    store: Store, kept: list[_Run], gone: list[_Run], now: float, older_than_s: float
) -> list[Doomed]:
    reached = {key for run in kept for key in run.keys}
    found = []
    for key in store.list("stages"):
        path = f"stages/{key}"
        if key in reached or not store.exists(path):
            continue
        meta = store.open(path).manifest.meta
        age_s = now - float(meta.get("started_at", 0.0)) - float(meta.get("seconds", 0.0))
        if age_s >= older_than_s:
            found.append(Doomed(path, store.usage(path), "no kept run reaches it"))
    wanted = {sha256 for run in kept for sha256 in run.inputs}
    for sha256 in sorted({sha256 for run in gone for sha256 in run.inputs} - wanted):
        if store.has_input(sha256):
            found.append(Doomed(f"inputs/{sha256}", store.usage(f"inputs/{sha256}"), "no kept run reads it"))
    return found


def _age(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.0f} hours"
