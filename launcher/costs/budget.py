"""The spend cap: what a run has cost over all its attempts, and what is left of `budget_usd`.

A rehearsal costs nothing. What has no price counts as nothing too; the estimate says so before the run.
"""

from __future__ import annotations

import json
from typing import Any

from launcher.costs.estimate import TokenCounts, estimate
from launcher.costs.hosted import hosted_usd, is_rehearsed
from launcher.costs.machine import machine_usd
from launcher.costs.usage import account
from launcher.outcome import Failure, Reason
from launcher.spec import catalog
from launcher.spec.catalog import Prices
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.records import StageMeta
from launcher.store.runs import Attempt, attempts, stage_meta


def prices_of(attempt: Attempt) -> Prices:
    """The catalogue's prices and those the attempt was opened with."""
    request = attempt.request
    return catalog.prices().extended(request.gpu_hour_usd, request.hosted_per_million_tokens_usd)


def budget_usd(attempt: Attempt) -> float | None:
    """The cap that the attempt was opened with; None: no cap."""
    return attempt.request.budget_usd


def spent_usd(plan: Plan, store: Store, attempt: Attempt) -> float:
    """What the run's stages and all tries of all its attempts have cost so far."""
    prices = prices_of(attempt)
    metas = {stage.name: stage_meta(store, stage) or StageMeta() for stage in plan.stages}
    total = sum(_finished_usd(stage, metas[stage.name], prices) for stage in plan.stages)
    for number in attempts(store, plan.run_id):
        tries = Attempt(store, plan.run_id, number).tries()
        for stage in plan.stages:
            wasted_s = account(stage, tries, metas[stage.name].seconds).wasted
            total += machine_usd(stage, wasted_s / 3600, prices) or 0.0
    return total


def remaining_usd(plan: Plan, store: Store, attempt: Attempt) -> float | None:
    """What may still be spent, at least 0; None if there is no cap."""
    cap = budget_usd(attempt)
    return None if cap is None else max(0.0, cap - spent_usd(plan, store, attempt))


def _finished_usd(stage: Stage, meta: StageMeta, prices: Prices) -> float:
    hosted = None if is_rehearsed(stage) else hosted_usd(stage, meta.measured_tokens, prices)
    return hosted[0] if hosted else machine_usd(stage, (meta.seconds or 0.0) / 3600, prices) or 0.0


def over_budget(plan: Plan, store: Store, attempt: Attempt, running_s: dict[str, float]) -> Failure | None:
    """Why the run must stop: its cost, including what runs now, is over the cap. None: it may go on.

    `running_s` is for how many seconds each running stage has been running.
    """
    cap = budget_usd(attempt)
    if cap is None:
        return None
    prices = prices_of(attempt)
    spent = spent_usd(plan, store, attempt)
    for name, seconds in running_s.items():
        stage = plan.stage(name)
        meta = stage_meta(store, stage)
        # Productive seconds of a stage that has committed and still runs are counted already.
        productive_s = (meta.seconds if meta else None) or 0.0
        spent += machine_usd(stage, max(0.0, seconds - productive_s) / 3600, prices) or 0.0
    return _failure(plan, f"${spent:.2f} are spent", cap) if spent > cap else None


def would_exceed(plan: Plan, store: Store, attempt: Attempt) -> Failure | None:
    """Why a paid stage must not start: what is spent plus the estimate of the rest is over the cap."""
    cap = budget_usd(attempt)
    if cap is None:
        return None
    card = store.open(f"stages/{plan.stage('prepare').key}").path("card.json")
    counts = counts_of(json.loads(card.read_bytes()))
    to_come = sum(
        one.usd or 0.0
        for one, stage in zip(estimate(plan, counts, prices_of(attempt)), plan.stages, strict=True)
        if not store.exists(f"stages/{stage.key}")
    )
    spent = spent_usd(plan, store, attempt)
    if spent + to_come <= cap:
        return None
    return _failure(plan, f"${spent:.2f} are spent and about ${to_come:.2f} are to come", cap)


def counts_of(card: dict[str, Any]) -> TokenCounts:
    """The token counts of a data card, the same as `launcher plan` computes if the data is on this machine."""
    train, test = card["parts"]["train"], card["parts"]["test"]

    def mean(part: dict[str, Any], kind: str) -> float:
        return float(part[f"{kind}_tokens"].get("mean", 0.0))

    return TokenCounts(
        train_rows=train["rows"],
        test_rows=test["rows"],
        upload_tokens=train["training_tokens"],
        train_tokens_per_row=mean(train, "prompt") + mean(train, "answer"),
        test_prompt_tokens_per_row=mean(test, "prompt"),
        test_answer_tokens_per_row=mean(test, "answer"),
    )


def _failure(plan: Plan, what: str, cap: float) -> Failure:
    return Failure(
        Reason.OVER_BUDGET,
        f"{what}, budget_usd is ${cap:.2f}",
        where=plan.run_id,
        next_step=f"launcher retry {plan.run_id} --budget-usd N: what is finished is kept",
    )
