"""Letters in their place: a fraction for each row, and the words that are right as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.measures.row_score import RowScore
from jobs.tasks.contract import ScoreContext, Scored
from jobs.tasks.rows import Row


def score(rows: Sequence[Row], answers: Sequence[str], _context: ScoreContext) -> Scored:
    return Scored([_score_row(row, answer.strip()) for row, answer in zip(rows, answers, strict=True)])


def _score_row(row: Row, answer: str) -> RowScore:
    matched = sum(a == b for a, b in zip(row.gold, answer, strict=False))
    fraction = matched / len(row.gold)
    return RowScore(
        row.id,
        answer,
        row.gold,
        True,
        {"in_place": fraction, "whole": answer == row.gold},
        None if answer == row.gold else f"{matched} of {len(row.gold)} letters in place",
        {"length": "short" if len(row.gold) < 6 else "long"},
        counts={"letters": (matched, len(row.gold))},
    )
