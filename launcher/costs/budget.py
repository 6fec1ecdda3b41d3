"""The spend cap: what a run has cost over all its attempts, and what is left of `budget_usd`.

A rehearsal costs nothing. What has no price counts as nothing too: an estimate says so before.
"""

from __future__ import annotations

import json
from typing import Any

from launcher.costs.estimate import TokenCounts, estimate
from launcher.costs.hosted import hosted_usd, is_rehearsed
from launcher.costs.usage import account
from launcher.outcome import Failure, Reason
from launcher.spec import catalog
from launcher.spec.catalog import Prices
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.runs import Attempt, attempts


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
    total = sum(_finished_usd(stage, store, prices) for stage in plan.stages)
    for number in attempts(store, plan.run_id):
        tries = Attempt(store, plan.run_id, number).tries()
        for stage in plan.stages:
            productive_s = _productive_s(stage, store)
            total += _machine_usd(stage, account(stage, tries, productive_s).wasted, prices)
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


def _productive_s(stage: Stage, store: Store) -> float | None:
    prefix = f"stages/{stage.key}"
    return store.open(prefix).manifest.meta.get("seconds") if store.exists(prefix) else None


def _machine_usd(stage: Stage, seconds: float, prices: Prices) -> float:
    price = prices.gpu(stage.resources.device)
    units = stage.resources.gpus * stage.resources.nodes or 1
    return seconds / 3600 * units * price.usd if price else 0.0


def over_budget(plan: Plan, store: Store, attempt: Attempt, running_s: dict[str, float]) -> Failure | None:
    """Why the run must not go on: what it has cost, with what runs now, is over the cap. None: it may.

    `running_s` is for how many seconds each stage that runs has been running.
    """
    cap = budget_usd(attempt)
    if cap is None:
        return None
    prices = prices_of(attempt)
    spent = spent_usd(plan, store, attempt)
    for name, seconds in running_s.items():
        stage = plan.stage(name)
        # One that has committed and not ended yet is among the finished ones already.
        spent += _machine_usd(stage, max(0.0, seconds - (_productive_s(stage, store) or 0.0)), prices)
    return _refusal(plan, f"${spent:.2f} are spent", cap) if spent > cap else None


def would_exceed(plan: Plan, store: Store, attempt: Attempt) -> Failure | None:
    """Why training must not start: what is spent and what is estimated for the rest are over the cap."""
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
    return _refusal(plan, f"${spent:.2f} are spent and about ${to_come:.2f} are to come", cap)


def counts_of(card: dict[str, Any]) -> TokenCounts:
    """The counts of a data card, as `launcher plan` makes them where the data is at hand."""
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


def _refusal(plan: Plan, what: str, cap: float) -> Failure:
    return Failure(
        Reason.OVER_BUDGET,
        f"{what}, budget_usd is ${cap:.2f}",
        where=plan.run_id,
        next_step=f"launcher retry {plan.run_id} --budget-usd N: what is finished is kept",
    )
