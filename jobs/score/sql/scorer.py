"""Text-to-SQL rows and answers to verdicts: extraction here, everything that runs or parses in the sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.score.result import RowScore
from jobs.score.sql.extract import MAX_ANSWER_CHARACTERS, extract_sql
from jobs.score.sql.pool import Lost, Pool
from jobs.tasks.rows import Row
from launcher.outcome import Failure, Reason

SEED = 0
MEASURES = ("exact", "exact_normalised", "strict", "official")

Progress = Callable[[int, int], None]


def workers_here() -> int:
    """Workers to use on this machine: one per processor this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def score(
    rows: Sequence[Row],
    answers: Sequence[str],
    directory: Path,
    *,
    workers: int,
    progress: Progress | None = None,
) -> list[RowScore]:
    """A verdict per row, in order. The verdicts do not depend on `workers`.

    `directory` is where the rows' database paths start. Raises Failure(BAD_DATA) for a row without
    what scoring needs.
    """
    told = progress or (lambda _done, _of: None)
    total = 2 * len(rows)
    jobs = prepare_jobs(rows, directory)
    with Pool(workers) as pool:
        distinct = {_key(job): job for job in jobs}
        entries = dict(
            zip(
                distinct,
                pool.map(list(distinct.values()), lambda n: told(min(n, len(rows)), total), batch=4),
                strict=True,
            )
        )
        golds = [_entry(entries[_key(job)], job["sql"]) for job in jobs]
        extracted = [extract_sql(answer[:MAX_ANSWER_CHARACTERS]) for answer in answers]
        asked = [
            index
            for index, gold in enumerate(golds)
            if gold["valid"] and len(answers[index]) <= MAX_ANSWER_CHARACTERS and extracted[index]
        ]
        verdicts = pool.map(
            [
                {"task": "judge", "gold": golds[i], "answer": extracted[i], "database": jobs[i]["database"]}
                for i in asked
            ],
            lambda n: told(len(rows) + n, total),
        )
    judged = dict(zip(asked, verdicts, strict=True))
    told(total, total)
    return [
        _row_score(row, answer, query, gold, judged.get(index))
        for index, (row, answer, query, gold) in enumerate(zip(rows, answers, extracted, golds, strict=True))
    ]


def prepare_jobs(rows: Sequence[Row], directory: Path) -> list[dict[str, Any]]:
    """The sandbox job that makes each row's gold query ready."""
    problems = []
    jobs = []
    for row in rows:
        fields = row.fields
        if not isinstance(fields.get("schema") or fields.get("context"), str):
            problems.append(f"row {row.id}: neither schema nor context")
            continue
        database = fields.get("database")
        path = _inside(directory, database) if database else None
        if database and path is None:
            problems.append(f"row {row.id}: the database '{database}' is not in the data's directory")
        jobs.append(
            {
                "task": "prepare",
                "sql": row.gold,
                "database": None if path is None else str(path),
                "schema": fields.get("schema") or fields["context"],
                "context": fields.get("context") or fields["schema"],
                "seed": SEED,
            }
        )
    if problems:
        raise Failure(
            Reason.BAD_DATA, "rows that cannot be scored", where=str(directory), problems=tuple(problems)
        )
    return jobs


def _inside(directory: Path, name: str) -> Path | None:
    """The absolute path of a file of the data, or None where it is missing or lies outside."""
    root = directory.resolve()
    path = (root / name).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def _key(job: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(job[name] for name in ("sql", "database", "schema", "context"))


def _entry(result: Any, sql: str) -> dict[str, Any]:
    if isinstance(result, Lost):
        return {"sql": sql, "valid": False, "problem": result.reason}
    entry: dict[str, Any] = result
    return entry


def _row_score(row: Row, answer: str, query: str, gold: dict[str, Any], verdict: Any) -> RowScore:
    exact = answer.strip() == row.gold.strip()
    scores = dict.fromkeys(MEASURES, False) | {"exact": exact}
    flags: dict[str, bool] = {}
    reason = None
    if not gold["valid"]:
        reason = f"the gold query does not run: {gold['problem']}"
    elif len(answer) > MAX_ANSWER_CHARACTERS:
        reason = f"too large: the answer has more than {MAX_ANSWER_CHARACTERS} characters"
    elif not query:
        reason = "empty: the answer holds no query"
    elif isinstance(verdict, Lost):
        reason = verdict.reason
    else:
        scores |= {name: verdict[name] for name in MEASURES if name != "exact"}
        flags["both_empty"] = verdict["both_empty"]
        reason = verdict["reason"]
    groups = {"database": str(row.fields.get("db_id") or "")}
    return RowScore(row.id, query, row.gold, gold["valid"], scores, reason, groups, flags)
