"""The row ledger of a hosted predict stage: every answer noted as it is heard, its dollars counted."""

from __future__ import annotations

import threading
from typing import Any

from jobs.hosted.journal import Notes
from launcher.outcome import Failure, Reason
from launcher.spec.catalog import Rate


class Ledger:
    """Answers by row number. Safe to use from several threads."""

    def __init__(self, notes: Notes, rate: Rate | None, left_usd: float | None) -> None:
        self._notes = notes
        self._rate = rate
        self._left_usd = left_usd
        self._lock = threading.Lock()
        self.answers: dict[int, dict[str, Any]] = {}
        self.spent_usd = 0.0

    def recall(self, rows: int) -> None:
        """Take up what earlier tries noted."""
        for name in self._notes.names("rows"):
            if name.isdigit() and int(name) < rows and (answer := self._notes.get(f"rows/{name}")):
                self._count(int(name), answer)

    def note(self, row: int, answer: dict[str, Any]) -> None:
        """Keep an answer: `answer`, `finish`, `prompt_tokens`, `answer_tokens`, `latency_s`."""
        self._notes.put(f"rows/{row:06d}", answer)
        self._count(row, answer)

    def _count(self, row: int, answer: dict[str, Any]) -> None:
        with self._lock:
            if row not in self.answers and self._rate is not None:
                self.spent_usd += self._rate.usd(answer["prompt_tokens"], answer["answer_tokens"])
            self.answers[row] = answer

    def check_budget(self, prompt_tokens: float, answer_tokens: float) -> None:
        """Raise Failure(OVER_BUDGET) where so many more tokens could cost more than is left."""
        if self._rate is None or self._left_usd is None:
            return
        more = self._rate.usd(prompt_tokens, answer_tokens)
        if self.spent_usd + more > self._left_usd:
            raise Failure(
                Reason.OVER_BUDGET,
                f"{len(self.answers)} rows answered for ${self.spent_usd:.4f}; the next request could cost "
                f"${more:.4f} and ${max(0.0, self._left_usd - self.spent_usd):.4f} of budget_usd is left",
                next_step="raise budget_usd and submit again: what was answered is kept",
            )
