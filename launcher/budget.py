"""The spend cap: what a run has cost over all its attempts, and what is left of `budget_usd`.

A rehearsal costs nothing. What has no price counts as nothing too: an estimate says so before.
"""

from __future__ import annotations

from launcher import catalog
from launcher.catalog import Prices
from launcher.hosted import hosted_usd, is_rehearsed
from launcher.outcome import Reason
from launcher.plan import Plan, Stage
from launcher.runs import Attempt, attempts
from launcher.store import Store


def prices_of(attempt: Attempt) -> Prices:
    """The catalogue's prices and those the attempt was opened with."""
    request = attempt.get("request.json") or {}
    return catalog.prices().extended(
        request.get("gpu_hour_usd", []), request.get("hosted_per_million_tokens_usd", [])
    )


def budget_usd(attempt: Attempt) -> float | None:
    """The cap that the attempt was opened with; None: no cap."""
    value = (attempt.get("request.json") or {}).get("budget_usd")
    return float(value) if isinstance(value, int | float) else None


def spent_usd(plan: Plan, store: Store, attempt: Attempt) -> float:
    """What the run's stages and all tries of all its attempts have cost so far."""
    prices = prices_of(attempt)
    total = sum(_finished_usd(stage, store, prices) for stage in plan.stages)
    by_name = {stage.name: stage for stage in plan.stages}
    for number in attempts(store, plan.run_id):
        for one in Attempt(store, plan.run_id, number).tries():
            stage = by_name.get(one.stage)
            if stage is None or one.end is None or one.reason is Reason.SUCCEEDED:
                continue
            seconds = max(0.0, float(one.end["ended_at"]) - one.started_at)
            total += _machine_usd(stage, seconds, prices)
    return total


def remaining_usd(plan: Plan, store: Store, attempt: Attempt) -> float | None:
    """What may still be spent, at least 0; None where there is no cap."""
    cap = budget_usd(attempt)
    return None if cap is None else max(0.0, cap - spent_usd(plan, store, attempt))


def _finished_usd(stage: Stage, store: Store, prices: Prices) -> float:
    prefix = f"stages/{stage.key}"
    if not store.exists(prefix):
        return 0.0
    meta = store.open(prefix).manifest.meta
    if is_rehearsed(stage):
        return _machine_usd(stage, float(meta.get("seconds") or 0.0), prices)
    hosted = hosted_usd(stage, meta, prices)
    return hosted[0] if hosted else _machine_usd(stage, float(meta.get("seconds") or 0.0), prices)


def _machine_usd(stage: Stage, seconds: float, prices: Prices) -> float:
    price = prices.gpu(stage.resources.device)
    units = stage.resources.gpus * stage.resources.nodes or 1
    return seconds / 3600 * units * price.usd if price else 0.0
