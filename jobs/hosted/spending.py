"""Dollars of one hosted stage against its allowance: what was billed, what may have been, what requests may cost.

Everything that may have been billed is in the journal, so that the next process of the stage counts it too: a
response that was lost, and the requests that were in flight when a process was killed.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from jobs.hosted.journal import Journal
from jobs.stage import StageContext
from launcher.costs import budget, ledger
from launcher.outcome import Failure, Reason
from launcher.store.records import Spending as Report
from launcher.store.runs import Attempt


@dataclass(frozen=True)
class Uncertain:
    """Journal entry of dollars that the service may have billed without a response."""

    usd: float
    what: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Spending:
    """Thread-safe. `limit_usd` None: no limit; amounts are counted all the same."""

    def __init__(self, journal: Journal, limit_usd: float | None = None) -> None:
        self._journal = journal
        self.limit_usd = limit_usd
        self._lock = threading.Lock()
        #: Dollars of responses that arrived.
        self.billed_usd = 0.0
        #: Dollars of the journal's uncertain entries.
        self.uncertain_usd = 0.0
        self._reserved_usd = 0.0
        #: Dollars of requests that cost more than was reserved for them.
        self.above_usd = 0.0
        #: What the request that did not fit needs.
        self.needed_usd: float | None = None
        self._process = f"uncertain/{uuid.uuid4().hex}"

    def begin(self, in_flight_usd: float) -> None:
        """Count what earlier processes may have spent. A killed process counts with `in_flight_usd`."""
        for name in self._journal.names("uncertain"):
            entry = self._journal.get(f"uncertain/{name}")
            self.uncertain_usd += float(entry["usd"]) if entry else 0.0
        if self.limit_usd is not None and in_flight_usd > 0:
            self._put(self._process, in_flight_usd, "in flight when the process was killed")

    def end(self) -> None:
        """No request is in flight."""
        if self.limit_usd is not None and self._journal.get(self._process) is not None:
            self._put(self._process, 0.0, "nothing in flight")

    @property
    def possible_usd(self) -> float:
        """What was billed, or may have been, or may still be for what is under way."""
        return self.billed_usd + self.uncertain_usd + self._reserved_usd

    def reserve(self, usd: float) -> None:
        """Reserve the most that a request can cost. Raises Failure(OVER_BUDGET) if that does not fit."""
        with self._lock:
            self._check(usd)
            self._reserved_usd += usd

    def resume(self, usd: float) -> None:
        """Reserve for what an earlier process has requested, which is under way at the service."""
        with self._lock:
            self._reserved_usd += usd

    def settle(self, reserved_usd: float, billed_usd: float) -> None:
        """Replace a reservation by what was billed."""
        with self._lock:
            self._reserved_usd = max(0.0, self._reserved_usd - reserved_usd)
            self.billed_usd += billed_usd
            if billed_usd > reserved_usd * (1 + 1e-9) and reserved_usd > 0:
                self.above_usd += billed_usd - reserved_usd

    def lose(self, usd: float, what: str) -> None:
        """A response was lost, so `usd` may have been billed. Raises Failure(OVER_BUDGET) if no repetition fits."""
        self.add_uncertain(usd, what)
        with self._lock:
            # The reservation of this request holds for its repetition.
            self._check(0.0)

    def add_uncertain(self, usd: float, what: str) -> None:
        """Count, also in later processes, what the service may bill although nothing came of it."""
        if self.limit_usd is None or usd <= 0:
            return
        self._put(f"uncertain/{uuid.uuid4().hex}", usd, what)
        with self._lock:
            self.uncertain_usd += usd

    def fits(self, usd: float) -> bool:
        """Whether a further reservation of `usd` would fit."""
        return self.limit_usd is None or self.possible_usd + usd <= self.limit_usd

    def _check(self, usd: float) -> None:
        if self.fits(usd):
            return
        assert self.limit_usd is not None
        self.needed_usd = max(usd, self.possible_usd + usd - self.limit_usd)
        above = (
            f"; the service bills ${self.above_usd:.4f} above its price and limits" if self.above_usd else ""
        )
        uncertain = f", ${self.uncertain_usd:.4f} of it for lost responses" if self.uncertain_usd else ""
        raise Failure(
            Reason.OVER_BUDGET,
            f"${self.billed_usd + self.uncertain_usd:.4f} are spent{uncertain}; the next request could cost "
            f"${usd:.4f}, and the stage may spend ${self.limit_usd:.4f} of budget_usd{above}",
            next_step="raise budget_usd and submit again: finished answers are kept",
        )

    def _put(self, name: str, usd: float, what: str) -> None:
        self._journal.put(name, Uncertain(usd, what).to_json())


@contextmanager
def spending(context: StageContext, journal: Journal, *, rehearsed: bool) -> Iterator[Spending]:
    """The spending of this stage under its allowance, reported to the run's ledger at the end.

    A rehearsal costs nothing and has no limit. Raises Failure(OVER_BUDGET) if the run has a budget and the stage no
    allowance.
    """
    attempt = Attempt(context.store, context.plan.run_id, context.attempt)
    if rehearsed or budget.budget_usd(attempt) is None:
        yield Spending(journal)
        return
    entry = ledger.allowance(context.store, context.plan.run_id, context.stage.name)
    attempt = Attempt(context.store, context.plan.run_id, entry.attempt)
    attempt.put_spending(context.stage.name, Report(entry=entry.number, open=True))
    one = Spending(journal, entry.usd)
    try:
        yield one
    finally:
        # Not reached by a killed process, whose whole allowance then counts as spent.
        one.end()
        attempt.put_spending(
            context.stage.name,
            Report(entry=entry.number, usd=one.possible_usd, needed_usd=one.needed_usd),
        )
