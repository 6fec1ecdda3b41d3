"""Scores and their summary: what the stage and the command have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.measures.row_score import RowScore, summarise
from jobs.tasks.contract import ScoreContext
from jobs.tasks.registry import Task
from jobs.tasks.rows import Row
from launcher.outcome import Failure, Reason
from launcher.spec.tasks import MeasureKind


def score_rows(
    task: Task, context: ScoreContext, rows: Sequence[Row], answers: Sequence[str]
) -> tuple[list[RowScore], dict[str, Any]]:
    """A score per row, and their summary. Raises Failure(USAGE | BAD_DATA | UNSUPPORTED)."""
    scored = task.score(rows, answers, context)
    primary = task.facts.primary or _first_measure(scored.rows)
    kinds = _kinds(task, scored.rows)
    return scored.rows, {**summarise(task.name, primary, scored.rows, kinds), **scored.extra}


def _first_measure(scores: Sequence[RowScore]) -> str:
    return next((name for score in scores for name in score.scores), "")


def _kinds(task: Task, scores: Sequence[RowScore]) -> dict[str, MeasureKind]:
    """Every measure of the scores with its kind. Raises Failure(BAD_DATA) if they do not fit task.yaml."""
    kinds: dict[str, MeasureKind] = {}
    problems = []
    for name in dict.fromkeys(name for score in scores for name in (*score.scores, *score.counts)):
        kind = task.facts.kind(name)
        if kind is None:
            problems.append(f"'{name}' is not among the measures of task.yaml")
            continue
        kinds[name] = kind
        values = [score.scores[name] for score in scores if name in score.scores]
        if (kind == "ratio") == bool(values):
            problems.append(f"'{name}' is a {kind}, which belongs into {'counts' if values else 'scores'}")
        elif kind == "share" and not all(value in (0, 1) for value in values):
            problems.append(f"'{name}' is a share, and has values besides 0 and 1: declare kind: mean")
    # A row without valid gold may lack all measures but the primary one.
    some_valid = any(score.valid_gold for score in scores)
    for name, facts in task.facts.measures.items():
        if scores and name not in kinds and (some_valid or facts.primary):
            problems.append(f"'{name}' is among the measures of task.yaml, and no row has it")
    if problems:
        raise Failure(
            Reason.BAD_DATA,
            "scorer.py does not fit task.yaml",
            where=f"task {task.name}",
            problems=tuple(problems),
        )
    return kinds
