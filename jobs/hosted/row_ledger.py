"""Answers of a hosted predict stage by row, each stored when it arrives, and the dollars that they cost."""

from __future__ import annotations

import threading

from jobs.hosted.chat import Answer
from jobs.hosted.journal import Journal
from launcher.outcome import Failure, Reason
from launcher.spec.catalog import Rate


class RowLedger:
    """Answers by row number. Thread-safe. `left_usd` None: no limit; `rate` None: answers cost nothing."""

    def __init__(self, journal: Journal, rate: Rate | None, left_usd: float | None) -> None:
        self._journal = journal
        self._rate = rate
        self._left_usd = left_usd
        self._lock = threading.Lock()
        self.answers: dict[int, Answer] = {}
        self.spent_usd = 0.0

    def load(self, rows: int) -> None:
        """Read the answers that earlier tries stored."""
        for name in self._journal.names("rows"):
            if name.isdigit() and int(name) < rows and (stored := self._journal.get(f"rows/{name}")):
                self._count(int(name), Answer.from_json(stored))

    def add(self, row: int, answer: Answer) -> None:
        """Store the answer of `row` and count its dollars."""
        self._journal.put(f"rows/{row:06d}", answer.to_json())
        self._count(row, answer)

    def _count(self, row: int, answer: Answer) -> None:
        with self._lock:
            if row not in self.answers and self._rate is not None:
                self.spent_usd += self._rate.usd(answer.prompt_tokens, answer.answer_tokens)
            self.answers[row] = answer

    def check_budget(self, prompt_tokens: float, answer_tokens: float) -> None:
        """Raise Failure(OVER_BUDGET) if this many more tokens could exceed the budget."""
        if self._rate is None or self._left_usd is None:
            return
        more = self._rate.usd(prompt_tokens, answer_tokens)
        if self.spent_usd + more > self._left_usd:
            raise Failure(
                Reason.OVER_BUDGET,
                f"{len(self.answers)} rows answered for ${self.spent_usd:.4f}; the next request could cost "
                f"${more:.4f} and ${max(0.0, self._left_usd - self.spent_usd):.4f} of budget_usd is left",
                next_step="raise budget_usd and submit again: finished answers are kept",
            )
