"""Allowances of hosted stages: how much of `budget_usd` each may spend, so that all together stay below it.

A tuning job needs its whole worst case before it is created. Answers are requested one by one, so a stage may start
with a share and ask for more; what a stage did not use goes to the others once it has ended.
"""

from __future__ import annotations

from enum import Enum

from launcher.costs.budget import Spent, budget_usd, estimated_usd, failure, prepared_counts, prices_of
from launcher.costs.estimate import TokenCounts
from launcher.costs.hosted import default_epochs, is_paid_service
from launcher.costs.ledger import Ledger
from launcher.outcome import Failure
from launcher.spec.catalog import Prices
from launcher.spec.plan import Plan, Stage
from launcher.spec.stages import HostedPredictSettings, TuneSettings
from launcher.store import Store
from launcher.store.runs import Attempt

#: A prompt is reserved as if each of its bytes were a token; text has about this many bytes a token.
_BYTES_PER_TOKEN = 4.5
#: Tokens that a service may add to a request (roles, a template's header).
_ROW_TOKENS = 64
#: Sums of dollars differ by less than this.
_ROUNDING_USD = 1e-9


class Decision(Enum):
    """Whether a stage may start: yes, or once another stage has ended."""

    START = "start"
    WAIT = "wait"


class Allowances:
    """Grants and settles the allowances of one attempt's hosted stages. Does nothing without a budget."""

    def __init__(self, plan: Plan, store: Store, attempt: Attempt) -> None:
        self._plan = plan
        self._store = store
        self._attempt = attempt
        self._cap_usd = budget_usd(attempt)

    def settle(self, stage: Stage) -> bool:
        """Account for a stage that has ended. True if it ended only because its allowance was used up."""
        if self._cap_usd is None or not is_paid_service(stage):
            return False
        ledger = Ledger(self._store, self._plan.run_id)
        ledger.settle(stage.name)
        return not ledger.is_open(stage.name) and ledger.needed_usd(stage.name) is not None

    def grant(self, stage: Stage, running: set[str]) -> Decision | Failure:
        """Grant the stage its allowance, if it needs one. `running` are the names of the stages that run now.

        A Failure says that the stage can never have what it needs.
        """
        if self._cap_usd is None or not is_paid_service(stage):
            return Decision.START
        # Of a stage that was killed, unless its last process left a report: the same allowance goes on.
        Ledger(self._store, self._plan.run_id).settle(stage.name)
        spent = Spent(self._plan, self._store, self._attempt)
        ledger = spent.ledger
        if ledger.is_open(stage.name):
            return Decision.START
        others_run = any(is_paid_service(self._plan.stage(name)) for name in running - {stage.name})
        own_usd = ledger.usd(stage.name)
        left_usd = self._left_usd(spent)
        least_usd, most_usd, others_usd = self._wanted(stage, spent, others_run=others_run)
        share = min(1.0, left_usd / (most_usd + others_usd)) if most_usd + others_usd > 0 else 1.0
        usd = max(share * most_usd, min(least_usd, left_usd))
        if usd + _ROUNDING_USD < least_usd or usd <= 0 < most_usd:
            if others_run:
                return Decision.WAIT
            reserved = f"${spent.total_usd:.2f} are spent or reserved"
            what = f"{reserved}, and {stage.name} can cost ${least_usd or most_usd:.4f}"
            return failure(self._plan, what, self._cap_usd)
        ledger.grant(stage.name, self._attempt.number, own_usd + usd)
        return Decision.START

    def _left_usd(self, spent: Spent) -> float:
        """Dollars for further allowances: not spent, not granted and not expected for machines."""
        assert self._cap_usd is not None
        machines_usd = sum(
            max(0.0, usd - spent.usd[name])
            for name, usd in estimated_usd(self._plan, self._store, self._attempt).items()
            if name not in spent.finished and not is_paid_service(self._plan.stage(name))
        )
        return max(0.0, self._cap_usd - spent.total_usd - machines_usd)

    def _wanted(self, stage: Stage, spent: Spent, *, others_run: bool) -> tuple[float, float, float]:
        """The least and the most that the stage can use now, and the most that others will still ask for."""
        counts, prices = prepared_counts(self._plan, self._store), prices_of(self._attempt)

        def most_usd(one: Stage) -> float:
            worst_usd, ledger = worst_case_usd(one, counts, prices), spent.ledger
            if one.kind == "tune":
                # What an earlier job cost buys nothing of the next one.
                return worst_usd
            return max(worst_usd - ledger.usd(one.name), ledger.needed_usd(one.name) or 0.0)

        most = most_usd(stage)
        others = sum(
            most_usd(one)
            for one in self._plan.stages
            if one.name != stage.name
            and is_paid_service(one)
            and one.name not in spent.finished
            and not spent.ledger.is_open(one.name)
        )
        if stage.kind == "tune":
            return most, most, others
        needed = spent.ledger.needed_usd(stage.name)
        if needed is not None:
            return needed, most, others
        # While others run, a start with less than the estimate would only be interrupted.
        expected = estimated_usd(self._plan, self._store, self._attempt)[stage.name]
        return min(most, expected) if others_run else 0.0, most, others


def worst_case_usd(stage: Stage, counts: TokenCounts, prices: Prices) -> float:
    """The most that a hosted stage can cost by these counts, if every request is answered once; 0 without a price.

    Of a job, all tokens of all epochs; of answers, the longest ones after prompts of one token a byte.
    """
    settings = stage.typed_settings()
    if isinstance(settings, TuneSettings):
        price = prices.training(settings.model)
        epochs = default_epochs(counts.train_rows) if settings.epochs == "auto" else settings.epochs
        return (price.training_usd(counts.upload_tokens * epochs) or 0.0) if price else 0.0
    if not isinstance(settings, HostedPredictSettings):
        return 0.0
    rate = prices.answering(settings.model, tuned="tuned" in stage.needs, batch=settings.batch)
    shown = settings.shots * counts.train_tokens_per_row
    prompt = _BYTES_PER_TOKEN * (counts.test_prompt_tokens_per_row + shown) + _ROW_TOKENS
    rows = counts.test_rows
    return rate.usd(rows * prompt, rows * settings.max_new_tokens) if rate else 0.0
