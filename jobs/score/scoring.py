"""Task -> how its answers are scored: what the stage and the command have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.measures.cache import Cache
from jobs.measures.row_score import RowScore, summarise
from jobs.tasks.chat import scorer as chat
from jobs.tasks.rows import Row
from jobs.tasks.viggo import scorer as viggo
from launcher.outcome import Failure, Reason


@dataclass(frozen=True)
class Scoring:
    """One set of answers to score. `directory` is where database paths start."""

    task: str
    directory: Path
    scorers: tuple[str, ...] = ()
    find_module: Callable[[str], Path] = Path
    progress: Callable[[int, int], None] | None = None
    workers: int | None = None
    cache: Path | None = None


def score_rows(
    scoring: Scoring, rows: Sequence[Row], answers: Sequence[str]
) -> tuple[list[RowScore], dict[str, Any]]:
    """A verdict per row and their summary. Raises Failure(USAGE | BAD_DATA)."""
    if scoring.task == "sql":
        return _sql(scoring, rows, answers)
    if scoring.task == "viggo":
        scores, primary = viggo.score(rows, answers), "canonical"
    elif scoring.task == "chat":
        chosen = chat.scorers(scoring.scorers or ("exact",), scoring.find_module)
        scores, primary = chat.score(rows, answers, chosen), next(iter(chosen))
    else:
        raise Failure(Reason.USAGE, f"no task '{scoring.task}'; there are sql, viggo, chat")
    return scores, summarise(scoring.task, primary, scores)


def _sql(
    scoring: Scoring, rows: Sequence[Row], answers: Sequence[str]
) -> tuple[list[RowScore], dict[str, Any]]:
    try:
        # Here, because it is the only task that needs sqlglot.
        from jobs.tasks.sql import scorer
        from jobs.tasks.sql.execution import kill_rate
    except ModuleNotFoundError as error:
        raise Failure(
            Reason.UNSUPPORTED,
            f"scoring SQL needs {error.name}, which is not installed",
            next_step="pip install 'tuneyard[score]'",
        ) from None
    cache = Cache(scoring.cache)
    try:
        found = scorer.score(
            rows,
            answers,
            scoring.directory,
            workers=scoring.workers or scorer.workers_here(),
            cache=cache,
            progress=scoring.progress,
        )
    finally:
        cache.close()
    return found.rows, {**summarise("sql", "strict", found.rows), "mutants": kill_rate.kill_rate(found.golds)}
