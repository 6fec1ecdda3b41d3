"""Text-to-SQL rows and answers to verdicts: extraction here, everything that runs or parses in the sandbox."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache as cached
from pathlib import Path
from typing import Any

import apsw
import sqlglot

from jobs.measures.cache import Cache, key
from jobs.measures.row_score import RowScore
from jobs.tasks.rows import Row
from jobs.tasks.sql.execution.engine import QueryLimits
from jobs.tasks.sql.execution.extract import MAX_ANSWER_CHARACTERS, extract_sql
from jobs.tasks.sql.execution.worker_pool import LostJob, WorkerPool
from launcher.outcome import Failure, Reason

SEED = 0
#: Less than a gold query may use: no answer needs as much, and every runaway query costs the wait. The steps
#: decide, the same on any machine; the seconds are for functions that take long in one step.
ANSWER_LIMITS = QueryLimits(steps=40_000_000, cpu_s=8.0)
#: Of a gold query that itself needs more than most (see prepare.py), what an answer that does the same may use.
HEAVY_LIMITS = QueryLimits()
#: CPU seconds after which the kernel ends a worker: for judging (an answer has less, see judge.py), and for making
#: a gold query ready.
_JUDGE_CPU_S = 60
_GOLD_CPU_S = 300
MEASURES = ("exact", "exact_normalised", "strict", "official")
#: Judged together and then kept: what is lost when the process is killed.
_JOBS_PER_COMMIT = 512
_GOLD_BATCH_JOBS = 2
_JUDGED_BY = ("sql", "plan", "real", "expected", "images", "columns", "normalised")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SqlScores:
    """A verdict per row, and each row's gold entry (see prepare.py) for the kill rate."""

    rows: list[RowScore]
    golds: list[dict[str, Any]]


def workers_here() -> int:
    """Workers to use on this machine: one per processor this process may use, at most 16."""
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
    """A verdict per row, in order. The verdicts depend neither on `workers` nor on the cache.

    Database paths in rows are relative to `directory`; `limits` bound an answer on each database unless the gold
    is heavy. Raises Failure(BAD_DATA) for rows that lack what scoring needs.
    """
    report = progress or (lambda _done, _of: None)
    extracted = [extract_sql(answer[:MAX_ANSWER_CHARACTERS]) for answer in answers]
    with WorkerPool(workers) as pool:
        scorer = _Scorer(pool, cache or Cache(None), report, 2 * len(rows))
        jobs = gold_jobs(rows, directory)
        golds = scorer.golds(jobs)
        asked = [
            index
            for index, gold in enumerate(golds)
            if gold["valid"] and extracted[index] and len(answers[index]) <= MAX_ANSWER_CHARACTERS
        ]
        verdicts = dict(zip(asked, scorer.verdicts(asked, golds, extracted, jobs, limits), strict=True))
    report(2 * len(rows), 2 * len(rows))
    scores = [
        _row_score(row, answer, query, gold, verdicts.get(index))
        for index, (row, answer, query, gold) in enumerate(zip(rows, answers, extracted, golds, strict=True))
    ]
    return SqlScores(scores, golds)


def explain(row: Row, answer: str, directory: Path, cache: Cache) -> dict[str, Any]:
    """One answer's verdict with its proof: {"score", "proof": see explain.py, or None if nothing ran}."""
    found = score([row], [answer], directory, workers=1, cache=cache)
    (one,), (gold,) = found.rows, found.golds
    proof = None
    if gold["valid"] and one.answer:
        (job,) = gold_jobs([row], directory)
        with WorkerPool(1) as pool:
            (result,) = pool.map([{**judge_job(gold, one.answer, job["database"]), "task": "explain"}])
        proof = {"error": result.reason} if isinstance(result, LostJob) else result
    return {"score": one.to_json(), "proof": proof}


def ready_golds(jobs: Sequence[dict[str, Any]], pool: WorkerPool, cache: Cache) -> list[dict[str, Any]]:
    """The entry of every gold query (see prepare.py), from the cache if it is there."""
    return _Scorer(pool, cache, lambda _done, _of: None, len(jobs)).golds(jobs)


class _Scorer:
    """Jobs through the cache and the pool."""

    def __init__(self, pool: WorkerPool, cache: Cache, report: Progress, total: int) -> None:
        self._pool, self._cache, self._report, self._total = pool, cache, report, total
        self._done = 0

    def golds(self, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The entry of every gold query; the same query on the same database is made ready once."""
        keys = [gold_key(job) for job in jobs]
        entries = self._ask(keys, jobs, len(jobs), _GOLD_BATCH_JOBS)
        return [
            {"sql": job["sql"], "valid": False, "problem": entry.reason}
            if isinstance(entry, LostJob)
            else entry
            for job, entry in zip(jobs, entries, strict=True)
        ]

    def verdicts(
        self,
        asked: Sequence[int],
        golds: Sequence[dict[str, Any]],
        queries: Sequence[str],
        jobs: Sequence[dict[str, Any]],
        limits: QueryLimits,
    ) -> list[Any]:
        """The verdict on each asked row's query, or LostJob."""
        keys = [
            key(code_digest(), "answer", gold_key(jobs[i]).hex(), queries[i], asdict(limits)) for i in asked
        ]
        return self._ask(
            keys,
            [judge_job(golds[i], queries[i], jobs[i]["database"], limits) for i in asked],
            len(jobs),
            None,
        )

    def _ask(
        self, keys: Sequence[bytes], jobs: Sequence[dict[str, Any]], share: int, batch: int | None
    ) -> list[Any]:
        """A result per job: from the cache, or from the pool and then kept. LostJob jobs are not kept."""
        known: dict[bytes, Any] = self._cache.get(keys)
        missing = {name: job for name, job in zip(keys, jobs, strict=True) if name not in known}
        # Questions of one database one after another, however the data is shuffled: workers keep few of them open.
        names = sorted(missing, key=lambda name: missing[name]["database"] or "")
        before = self._done
        for start in range(0, len(names), _JOBS_PER_COMMIT):
            part = names[start : start + _JOBS_PER_COMMIT]

            def report(finished: int, at: int = start) -> None:
                self._report(before + share * (at + finished) // len(names), self._total)

            options = {} if batch is None else {"batch": batch}
            results = dict(
                zip(part, self._pool.map([missing[name] for name in part], report, **options), strict=True)
            )
            self._cache.put(
                {name: result for name, result in results.items() if not isinstance(result, LostJob)}
            )
            known |= results
        self._done += share
        self._report(self._done, self._total)
        return [known[name] for name in keys]


@cached
def code_digest() -> str:
    """Digest of what turns a job into a result: this package, its parser, SQLite and Python."""
    sha = hashlib.sha256(f"{sqlglot.__version__} {apsw.sqlite_lib_version()} {sys.version_info[:2]}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


@cached
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def gold_key(job: dict[str, Any]) -> bytes:
    """The key of a gold query's entry: everything the entry depends on, the database by its content."""
    database = None if job["database"] is None else _digest(Path(job["database"]))
    return key(code_digest(), "gold", {**job, "database": database})


def judge_job(
    gold: dict[str, Any], query: str, database: str | None, limits: QueryLimits = ANSWER_LIMITS
) -> dict[str, Any]:
    """The sandbox job that judges one answer; of the gold's entry it carries what judging needs.

    `limits` are what the answer may use, or more if the gold itself is heavy.
    """
    needed = {name: gold[name] for name in _JUDGED_BY}
    if gold["heavy"]:
        steps, cpu_s = max(limits.steps, HEAVY_LIMITS.steps), max(limits.cpu_s, HEAVY_LIMITS.cpu_s)
        limits = replace(limits, steps=steps, cpu_s=cpu_s)
    return {
        "task": "judge",
        "cpu_s": _JUDGE_CPU_S,
        "gold": needed,
        "answer": query,
        "database": database,
        "limits": asdict(limits),
    }


def gold_jobs(rows: Iterable[Row], directory: Path) -> list[dict[str, Any]]:
    """The sandbox job that makes each row's gold query ready. Raises Failure(BAD_DATA) with all problems."""
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
            {
                "task": "prepare",
                "cpu_s": _GOLD_CPU_S,
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


def _database(row: Row, directory: Path) -> Path | None:
    """The absolute path of a row's database, or None if it has none inside the data's directory."""
    if not row.fields.get("database"):
        return None
    root = directory.resolve()
    path = (root / str(row.fields["database"])).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def _row_score(row: Row, answer: str, query: str, gold: dict[str, Any], verdict: Any) -> RowScore:
    scores = dict.fromkeys(MEASURES, False) | {"exact": answer.strip() == row.gold.strip()}
    flags: dict[str, bool] = {}
    notes: dict[str, str] = {}
    reason = None
    if not gold["valid"]:
        reason = f"the gold query does not run: {gold['problem']}"
    elif len(answer) > MAX_ANSWER_CHARACTERS:
        reason = f"too large: the answer has more than {MAX_ANSWER_CHARACTERS} characters"
    elif not query:
        reason = "empty: the answer holds no query"
    elif isinstance(verdict, LostJob):
        reason = verdict.reason
    else:
        scores |= {name: verdict[name] for name in MEASURES if name != "exact"}
        flags = {"both_empty": verdict["both_empty"], "ambiguous_gold": gold["ambiguous"]}
        reason = verdict["reason"]
        if verdict["disagreement"] is not None:
            notes["strict_and_official"] = verdict["disagreement"]
    groups = {"hardness": gold.get("hardness", "unknown"), "database": str(row.fields.get("db_id") or "")}
    return RowScore(row.id, query, row.gold, gold["valid"], scores, reason, groups, flags, notes=notes)
