"""Score text-to-SQL answers. Queries are extracted here; all parsing and execution runs in sandbox workers."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache as cached
from pathlib import Path
from typing import Any, TypeVar

import apsw
import sqlglot

from jobs.measures.cache import Cache, key
from jobs.measures.row_score import RowScore
from jobs.tasks.rows import Row
from jobs.tasks.sql.execution.extract import MAX_ANSWER_CHARACTERS, extract_sql
from jobs.tasks.sql.execution.query_runner import QueryLimits
from jobs.tasks.sql.execution.records import (
    ExplainJob,
    GoldEntry,
    Job,
    JsonObject,
    JudgeJob,
    PrepareJob,
    Verdict,
)
from jobs.tasks.sql.execution.worker_pool import LostJob, WorkerPool
from launcher.outcome import Failure, Reason

SEED = 0
#: Per database. Less than for gold queries, because a thousand endless answers would take a thousand times as
#: long. The steps, equal on every machine, are reached first; the seconds bound expensive functions.
ANSWER_LIMITS = QueryLimits(steps=40_000_000, cpu_s=8.0)
#: At least this much for answers to a heavy gold query (see GoldEntry).
HEAVY_LIMITS = QueryLimits()
MEASURES = ("exact", "exact_normalised", "strict", "official")
#: Results are cached after so many jobs: at most these are lost if the process is killed.
_JOBS_PER_COMMIT = 512
_PREPARE_BATCH_JOBS = 2

Progress = Callable[[int, int], None]
R = TypeVar("R", bound=GoldEntry | Verdict)


@dataclass(frozen=True)
class SqlScores:
    """A score and a gold entry per row, in the rows' order."""

    rows: list[RowScore]
    golds: list[GoldEntry]


def default_workers() -> int:
    """One worker per processor that this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def score(
    rows: Sequence[Row],
    answers: Sequence[str],
    directory: Path,
    *,
    workers: int,
    cache: Cache | None = None,
    progress: Progress | None = None,
    limits: QueryLimits = ANSWER_LIMITS,
) -> SqlScores:
    """Score answers to rows. Verdicts depend neither on `workers` nor on the cache.

    `directory` is the root of the rows' database paths. `limits` bound an answer on each database, unless its
    gold query is heavy. `progress(done, total)` counts two steps per row.
    Raises Failure(BAD_DATA) if rows lack what scoring needs.
    """
    report = progress or (lambda _done, _of: None)
    extracted = [extract_sql(answer[:MAX_ANSWER_CHARACTERS]) for answer in answers]
    jobs = prepare_jobs(rows, directory)
    with WorkerPool(workers) as pool:
        runner = _JobRunner(pool, cache or Cache(None), report, 2 * len(rows))
        golds = runner.prepare(jobs)
        judged = [
            index
            for index, gold in enumerate(golds)
            if gold.reference and extracted[index] and len(answers[index]) <= MAX_ANSWER_CHARACTERS
        ]
        verdicts = dict(zip(judged, runner.judge(judged, golds, extracted, jobs, limits), strict=True))
    report(2 * len(rows), 2 * len(rows))
    scores = [
        _row_score(row, answer, query, gold, verdicts.get(index))
        for index, (row, answer, query, gold) in enumerate(zip(rows, answers, extracted, golds, strict=True))
    ]
    return SqlScores(scores, golds)


def explain(row: Row, answer: str, directory: Path, cache: Cache) -> dict[str, Any]:
    """{"score": the score of one answer, "proof": the JSON of an Explanation or Failed of explanation.py}.

    The proof is None if nothing ran.
    """
    found = score([row], [answer], directory, workers=1, cache=cache)
    (one,), (gold,) = found.rows, found.golds
    proof: JsonObject | None = None
    if gold.reference and one.answer:
        (job,) = prepare_jobs([row], directory)
        with WorkerPool(1) as pool:
            (result,) = pool.map([ExplainJob(gold.reference, one.answer, job.database, ANSWER_LIMITS)])
        proof = {"error": result.reason} if isinstance(result, LostJob) else result
    return {"score": one.to_json(), "proof": proof}


def prepare_golds(jobs: Sequence[PrepareJob], pool: WorkerPool, cache: Cache) -> list[GoldEntry]:
    """The entry of each gold query, from the cache if it is there."""
    return _JobRunner(pool, cache, lambda _done, _of: None, len(jobs)).prepare(jobs)


class _JobRunner:
    """Runs jobs whose results are not in the cache, and caches them. `report(done, total)` shows progress."""

    def __init__(self, pool: WorkerPool, cache: Cache, report: Progress, total: int) -> None:
        self._pool, self._cache, self._report, self._total = pool, cache, report, total
        self._done = 0

    def prepare(self, jobs: Sequence[PrepareJob]) -> list[GoldEntry]:
        """The entry of each gold query; equal jobs run once."""
        entries = self._run([prepare_key(job) for job in jobs], jobs, len(jobs), _PREPARE_BATCH_JOBS)
        return [
            GoldEntry(job.sql, problem=entry.reason) if isinstance(entry, LostJob) else entry
            for job, entry in zip(jobs, entries, strict=True)
        ]

    def judge(
        self,
        indices: Sequence[int],
        golds: Sequence[GoldEntry],
        queries: Sequence[str],
        jobs: Sequence[PrepareJob],
        limits: QueryLimits,
    ) -> list[Verdict | LostJob]:
        """The verdict on the query of each of these rows."""
        allowance = limits.to_json()
        return self._run(
            [
                key(code_digest(), "answer", prepare_key(jobs[i]).hex(), queries[i], allowance)
                for i in indices
            ],
            [judge_job(golds[i], queries[i], jobs[i].database, limits) for i in indices],
            len(jobs),
            None,
        )

    def _run(
        self, keys: Sequence[bytes], jobs: Sequence[Job[R]], steps: int, batch: int | None
    ) -> list[R | LostJob]:
        """A result per job; jobs with equal keys run once. `steps` is the share of these jobs in the progress."""
        by_key = dict(zip(keys, jobs, strict=True))
        known: dict[bytes, R | LostJob] = {
            name: by_key[name].read_result(value) for name, value in self._cache.get(keys).items()
        }
        # Sorted by database, so that a worker opens few of them.
        missing = sorted(
            (name for name in by_key if name not in known), key=lambda name: by_key[name].database or ""
        )
        before = self._done
        for start in range(0, len(missing), _JOBS_PER_COMMIT):
            part = missing[start : start + _JOBS_PER_COMMIT]

            def report(finished: int, at: int = start) -> None:
                self._report(before + steps * (at + finished) // len(missing), self._total)

            options = {} if batch is None else {"batch": batch}
            found = self._pool.map([by_key[name] for name in part], report, **options)
            results = dict(zip(part, found, strict=True))
            self._cache.put(
                {
                    name: result.to_json()
                    for name, result in results.items()
                    if not isinstance(result, LostJob)
                }
            )
            known |= results
        self._done += steps
        self._report(self._done, self._total)
        return [known[name] for name in keys]


@cached
def code_digest() -> str:
    """Digest of all that turns a job into a result: this package, sqlglot, SQLite and Python."""
    sha = hashlib.sha256(f"{sqlglot.__version__} {apsw.sqlite_lib_version()} {sys.version_info[:2]}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


@cached
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def prepare_key(job: PrepareJob) -> bytes:
    """The cache key of a gold entry: the job, with the database's content in place of its path."""
    database = None if job.database is None else _digest(Path(job.database))
    return key(code_digest(), "gold", replace(job, database=database).to_json())


def judge_job(
    gold: GoldEntry, query: str, database: str | None, limits: QueryLimits = ANSWER_LIMITS
) -> JudgeJob:
    """The job that judges one answer. Raises ValueError if the gold query runs on no database."""
    if gold.reference is None:
        raise ValueError(f"no database to judge on: {gold.problem}")
    if gold.heavy:
        steps, cpu_s = max(limits.steps, HEAVY_LIMITS.steps), max(limits.cpu_s, HEAVY_LIMITS.cpu_s)
        limits = replace(limits, steps=steps, cpu_s=cpu_s)
    return JudgeJob(gold.reference, query, database, limits)


def prepare_jobs(rows: Iterable[Row], directory: Path) -> list[PrepareJob]:
    """The job that prepares each row's gold query. Raises Failure(BAD_DATA) with all problems."""
    problems = []
    jobs = []
    for row in rows:
        fields = row.fields
        if not isinstance(fields.get("schema") or fields.get("context"), str):
            problems.append(f"row {row.id}: neither schema nor context")
            continue
        path = _database(row, directory)
        if fields.get("database") and path is None:
            problems.append(
                f"row {row.id}: the database '{fields['database']}' is not in the data's directory"
            )
        jobs.append(
            PrepareJob(
                row.gold,
                None if path is None else str(path),
                fields.get("schema") or fields["context"],
                fields.get("context") or fields["schema"],
                SEED,
            )
        )
    if problems:
        raise Failure(
            Reason.BAD_DATA, "rows that cannot be scored", where=str(directory), problems=tuple(problems)
        )
    return jobs


def _database(row: Row, directory: Path) -> Path | None:
    """The absolute path of a row's database; None if it has none inside `directory`."""
    if not row.fields.get("database"):
        return None
    root = directory.resolve()
    path = (root / str(row.fields["database"])).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def _row_score(
    row: Row, answer: str, query: str, gold: GoldEntry, verdict: Verdict | LostJob | None
) -> RowScore:
    scores = dict.fromkeys(MEASURES, False) | {"exact": answer.strip() == row.gold.strip()}
    flags: dict[str, bool] = {}
    notes: dict[str, str] = {}
    reason = None
    if gold.reference is None:
        reason = f"the gold query does not run: {gold.problem}"
    elif len(answer) > MAX_ANSWER_CHARACTERS:
        reason = f"too large: the answer has more than {MAX_ANSWER_CHARACTERS} characters"
    elif verdict is None:
        reason = "empty: the answer holds no query"
    elif isinstance(verdict, LostJob):
        reason = verdict.reason
    else:
        scores |= {
            "exact_normalised": bool(verdict.exact_normalised),
            "strict": verdict.strict,
            "official": bool(verdict.official),
        }
        flags = {"both_empty": verdict.both_empty, "ambiguous_gold": gold.ambiguous}
        reason = verdict.reason
        if verdict.disagreement is not None:
            notes["strict_and_official"] = verdict.disagreement
    groups = {"hardness": gold.hardness, "database": str(row.fields.get("db_id") or "")}
    valid = gold.reference is not None
    return RowScore(row.id, query, row.gold, valid, scores, reason, groups, flags, notes=notes)
