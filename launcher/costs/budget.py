"""The spend cap: what a run has cost over all its attempts, and what is left of `budget_usd`.

A rehearsal costs nothing. What has no price counts as nothing too; the estimate says so before the run.
"""

from __future__ import annotations

import json
from typing import Any

from launcher.costs.estimate import TokenCounts, estimate
from launcher.costs.hosted import hosted_usd, is_paid_service
from launcher.costs.ledger import Ledger
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


class Spent:
    """What the stages of a run have cost so far, over all attempts. Read once."""

    def __init__(
        self, plan: Plan, store: Store, attempt: Attempt, running_s: dict[str, float] | None = None
    ) -> None:
        """`running_s` is for how many seconds each running stage has held its machine."""
        self._prices = prices_of(attempt)
        self.ledger = Ledger(store, plan.run_id)
        metas = {stage.name: stage_meta(store, stage) for stage in plan.stages}
        self.finished = {name for name, meta in metas.items() if meta is not None}
        self.usd = {stage.name: self._finished_usd(stage, metas[stage.name]) for stage in plan.stages}
        for number in attempts(store, plan.run_id):
            tries = Attempt(store, plan.run_id, number).tries()
            for stage in plan.stages:
                meta = metas[stage.name]
                wasted_s = account(stage, tries, meta.seconds if meta else None).wasted
                self.usd[stage.name] += machine_usd(stage, wasted_s / 3600, self._prices) or 0.0
        for name, seconds in (running_s or {}).items():
            # Productive seconds of a stage that has committed and still runs are counted already.
            meta = metas[name]
            more_s = max(0.0, seconds - ((meta.seconds if meta else None) or 0.0))
            self.usd[name] += machine_usd(plan.stage(name), more_s / 3600, self._prices) or 0.0

    @property
    def total_usd(self) -> float:
        """All stages. A hosted stage that may be spending counts with its whole allowance."""
        return sum(self.usd.values())

    def _finished_usd(self, stage: Stage, meta: StageMeta | None) -> float:
        """Tokens of a hosted stage, also of one that has not finished; else the productive machine time."""
        measured = meta or StageMeta()
        if is_paid_service(stage):
            billed = hosted_usd(stage, measured.measured_tokens, self._prices)
            return max(self.ledger.usd(stage.name), billed[0] if billed else 0.0)
        return machine_usd(stage, (measured.seconds or 0.0) / 3600, self._prices) or 0.0


def spent_usd(plan: Plan, store: Store, attempt: Attempt) -> float:
    """What the run's stages and all tries of all its attempts have cost so far, or may have."""
    return Spent(plan, store, attempt).total_usd


def over_budget(plan: Plan, store: Store, attempt: Attempt, running_s: dict[str, float]) -> Failure | None:
    """Why the run must stop: its cost, including what runs now, is over the cap. None: it may go on.

    `running_s` is for how many seconds each running stage has been running.
    """
    cap = budget_usd(attempt)
    if cap is None:
        return None
    spent = Spent(plan, store, attempt, running_s).total_usd
    return failure(plan, f"${spent:.2f} are spent", cap) if spent > cap else None


def would_exceed(plan: Plan, store: Store, attempt: Attempt) -> Failure | None:
    """Why a paid stage must not start: what is spent plus the estimate of the rest is over the cap."""
    cap = budget_usd(attempt)
    if cap is None:
        return None
    spent = Spent(plan, store, attempt)
    done = to_come = 0.0
    for name, usd in estimated_usd(plan, store, attempt).items():
        if name in spent.finished:
            done += spent.usd[name]
        elif spent.ledger.is_open(name):
            to_come += usd
        else:
            done += spent.usd[name]
            to_come += max(0.0, usd - spent.ledger.usd(name))
    if done + to_come <= cap:
        return None
    return failure(plan, f"${done:.2f} are spent and about ${to_come:.2f} are to come", cap)


def estimated_usd(plan: Plan, store: Store, attempt: Attempt) -> dict[str, float]:
    """The estimate of every stage by the counts of the prepared data; 0 for one without a price."""
    counts = prepared_counts(plan, store)
    found = estimate(plan, counts, prices_of(attempt))
    return {stage.name: one.usd or 0.0 for one, stage in zip(found, plan.stages, strict=True)}


def prepared_counts(plan: Plan, store: Store) -> TokenCounts:
    """The token counts of the committed data."""
    card = store.open(f"stages/{plan.stage('prepare').key}").path("card.json")
    return counts_of(json.loads(card.read_bytes()))


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


def failure(plan: Plan, what: str, cap: float) -> Failure:
    """The failure of a run or stage that would pass the cap."""
    return Failure(
        Reason.OVER_BUDGET,
        f"{what}, budget_usd is ${cap:.2f}",
        where=plan.run_id,
        next_step=f"launcher retry {plan.run_id} --budget-usd N: what is finished is kept",
    )
