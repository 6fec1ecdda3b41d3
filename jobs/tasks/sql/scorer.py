"""Scores of text-to-SQL, and the proof behind one row's verdict. `judging` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.measures.cache import Cache
from jobs.tasks.contract import ScoreContext, Scored
from jobs.tasks.rows import Row
from jobs.tasks.sql import judging
from jobs.tasks.sql.execution import kill_rate


def score(rows: Sequence[Row], answers: Sequence[str], context: ScoreContext) -> Scored:
    """A verdict per row by execution, and the kill rate of the databases' mutants."""
    cache = Cache(context.cache)
    try:
        found = judging.score(
            rows,
            answers,
            context.directory(),
            workers=context.workers or judging.default_workers(),
            cache=cache,
            progress=context.progress,
        )
    finally:
        cache.close()
    return Scored(found.rows, {"mutants": kill_rate.kill_rate(found.golds).to_json()})


def explain(row: Row, answer: str, context: ScoreContext) -> dict[str, Any]:
    """One answer's verdict and the tables that prove it; see `judging.explain`."""
    cache = Cache(context.cache)
    try:
        return judging.explain(row, answer, context.directory(), cache)
    finally:
        cache.close()
