"""Answers of a hosted predict stage by row, each stored when it arrives, and the dollars that they cost."""

from __future__ import annotations

import threading

from jobs.hosted.chat import Answer, ChatRequest
from jobs.hosted.journal import Journal
from jobs.hosted.spending import Spending
from launcher.spec.catalog import Rate


class RowLedger:
    """Answers by row number. Thread-safe. `rate` None: answers cost nothing."""

    def __init__(self, journal: Journal, rate: Rate | None, spending: Spending) -> None:
        self._journal = journal
        self._rate = rate
        self.spending = spending
        self._lock = threading.Lock()
        self.answers: dict[int, Answer] = {}

    def load(self, rows: int) -> None:
        """Read the answers that earlier tries stored."""
        for name in self._journal.names("rows"):
            if name.isdigit() and int(name) < rows and (stored := self._journal.get(f"rows/{name}")):
                self._count(int(name), Answer.from_json(stored), 0.0)

    def add(self, row: int, answer: Answer, reserved_usd: float) -> None:
        """Store the answer of `row`, and count its dollars in place of what was reserved for it."""
        self._journal.put(f"rows/{row:06d}", answer.to_json())
        self._count(row, answer, reserved_usd)

    def _count(self, row: int, answer: Answer, reserved_usd: float) -> None:
        with self._lock:
            self.answers[row] = answer
        billed = self._rate.usd(answer.prompt_tokens, answer.answer_tokens) if self._rate else 0.0
        self.spending.settle(reserved_usd, billed)

    def most_usd(self, request: ChatRequest) -> float:
        """The most that one request can cost."""
        return self._rate.usd(request.most_prompt_tokens, request.max_tokens) if self._rate else 0.0
