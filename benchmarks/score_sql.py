"""Answers per second of the SQL scorer: `python benchmarks/score_sql.py --data DIR` (`make bench-score`).

DIR has Spider's layout. Each gold query is judged as its own answer on its real and its generated databases, in
the sandbox. Measured: preparing gold queries without a cache; judging on one and two workers, with gold queries
prepared and no answer cached; `official` and the normalised match separately; growing parts of the data; and a
whole scoring with all measures, in which equal answers to equal questions are judged once.

For comparison, on real databases only: a loop in one process without a sandbox that runs gold and answer, as
evaluators do; and the scorer's SQLite running each query once, a lower bound. The slowest databases are left out
of the last measurements.
"""

from __future__ import annotations

import argparse
import resource
import sqlite3
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import apsw

from jobs.data.sources import read_part
from jobs.measures.cache import Cache, default_path
from jobs.tasks.rows import Row
from jobs.tasks.sql.execution import connections
from jobs.tasks.sql.execution.records import GoldEntry, JudgeJob, PrepareJob
from jobs.tasks.sql.execution.worker_pool import LostJob, WorkerPool
from jobs.tasks.sql.judging import judge_job, prepare_golds, prepare_jobs, prepare_key, score

#: Gold queries prepared without the cache.
COLD_ROWS = 200
PARTS = (0.125, 0.25, 0.5, 1.0)
#: A database is slow if it takes more than this share of the time that SQLite takes for all.
SLOW_SHARE = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="a directory with Spider's layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rows", type=int, help="the first rows only")
    parser.add_argument(
        "--repeat", type=int, default=2, help="runs of each measurement; the fastest is shown"
    )
    options = parser.parse_args()
    rows = read_part("sql", "spider", options.data, options.split)[: options.rows]
    prepared = prepare_jobs(rows, options.data)
    _measure_cold(prepared)
    cache = Cache(default_path())
    with WorkerPool(2) as pool:
        golds = prepare_golds(prepared, pool, cache)
    cache.close()
    jobs = [
        replace(judge_job(gold, gold.sql, job.database), normalise=False, official=False)
        for gold, job in zip(golds, prepared, strict=True)
        if gold.reference
    ]
    databases = sum(job.reference.real + len(job.reference.images) for job in jobs)
    print(f"{len(jobs)} answers, {databases / len(jobs):.2f} databases each")
    for workers in (1, 2):
        _measure(f"strict, {workers} worker(s)", jobs, workers, options.repeat)
    official = [replace(job, official=True) for job in jobs]
    _measure("strict + official, 2 workers", official, 2, options.repeat)
    _measure(
        "strict + normalise, 2 workers", [replace(job, normalise=True) for job in jobs], 2, options.repeat
    )
    real = [replace(job, reference=replace(job.reference, images=())) for job in jobs if job.reference.real]
    _show("a plain loop, real databases alone", len(real), options.repeat, lambda: _plain_loop(real))
    by_database: dict[str, float] = defaultdict(float)
    _show(
        "SQLite itself, real databases alone",
        len(real),
        options.repeat,
        lambda: _sqlite_itself(real, by_database),
    )
    for workers in (1, 2):
        _measure(f"strict, real databases alone, {workers} worker(s)", real, workers, options.repeat)
    slow = {path for path, seconds in by_database.items() if seconds > SLOW_SHARE * sum(by_database.values())}
    print(f"left out below: {', '.join(sorted(Path(path).stem for path in slow)) or 'nothing'}")
    for name, some in (("strict", jobs), ("strict, real databases alone", real)):
        rest = [job for job in some if job.database not in slow]
        _measure(f"{name}, without these, 2 workers", rest, 2, options.repeat)
    for part in PARTS:
        _measure(
            f"strict, {part:.1%} of the rows, 2 workers", jobs[: int(len(jobs) * part)], 2, options.repeat
        )
    _show(
        "a whole scoring, 2 workers",
        len(rows),
        options.repeat,
        lambda: _whole_scoring(rows, options.data, prepared, golds),
    )
    print(f"peak memory of this process {_peak_mib(resource.RUSAGE_SELF):.0f} MiB")


def _measure_cold(jobs: Sequence[PrepareJob]) -> None:
    sample = jobs[:: max(1, len(jobs) // COLD_ROWS)][:COLD_ROWS]
    with WorkerPool(2) as pool:
        started = time.perf_counter()
        pool.map(sample, batch=2)
        seconds = time.perf_counter() - started
    print(
        f"cold: {len(sample)} gold queries prepared in {seconds:.1f} s on 2 workers: {len(sample) / seconds:.0f}/s"
    )


def _measure(name: str, jobs: Sequence[JudgeJob], workers: int, repeat: int) -> None:
    with WorkerPool(workers) as pool:
        pool.map(jobs[:200])  # start the workers, load their modules
        _show(name, len(jobs), repeat, lambda: _timed(pool, jobs))


def _show(name: str, answers: int, repeat: int, timed: Callable[[], float]) -> None:
    fastest = min(timed() for _ in range(repeat))
    rate, each = answers / fastest, 1e6 * fastest / answers
    print(
        f"{name:45} {rate:8.0f} answers/s {each:8.0f} µs each, peak {_peak_mib(resource.RUSAGE_CHILDREN):.0f} MiB"
    )


def _timed(pool: WorkerPool, jobs: Sequence[JudgeJob]) -> float:
    started = time.perf_counter()
    results = pool.map(jobs)
    seconds = time.perf_counter() - started
    wrong = [result for result in results if isinstance(result, LostJob) or not result.strict]
    if wrong:
        raise SystemExit(f"{len(wrong)} gold answers were not right: {wrong[0]}")
    return seconds


def _plain_loop(jobs: Sequence[JudgeJob]) -> float:
    """Seconds of a loop over Python's sqlite3 that opens each database once and compares bags of rows."""
    opened: dict[str, sqlite3.Connection] = {}
    started = time.perf_counter()
    for job in jobs:
        path = job.database or ""
        if path not in opened:
            opened[path] = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            opened[path].text_factory = lambda data: data.decode("utf-8", "ignore")
        gold, answer = (
            Counter(opened[path].execute(sql).fetchall()) for sql in (job.reference.sql, job.answer)
        )
        if gold != answer:
            raise SystemExit(f"a gold answer was not right: {job.answer}")
    seconds = time.perf_counter() - started
    for connection in opened.values():
        connection.close()
    return seconds


def _sqlite_itself(jobs: Sequence[JudgeJob], by_database: dict[str, float]) -> float:
    """Seconds in which apsw returns all answers' rows in one process; also added to `by_database`."""
    opened: dict[str, apsw.Connection] = {}
    began = time.perf_counter()
    for job in jobs:
        started, path = time.perf_counter(), job.database or ""
        if path not in opened:
            opened[path] = connections.unguarded_file(Path(path))
        with suppress(UnicodeDecodeError):
            opened[path].execute(job.answer).fetchall()
        by_database[path] += time.perf_counter() - started
    seconds = time.perf_counter() - began
    for connection in opened.values():
        connection.close()
    return seconds


def _whole_scoring(
    rows: Sequence[Row], data: Path, prepared: Sequence[PrepareJob], golds: Sequence[GoldEntry]
) -> float:
    """Seconds of `launcher score` without its start, with gold queries prepared and no answer cached."""
    with tempfile.TemporaryDirectory() as directory:
        cache = Cache(Path(directory) / "cache.sqlite")
        cache.put({prepare_key(job): gold.to_json() for job, gold in zip(prepared, golds, strict=True)})
        started = time.perf_counter()
        score(rows, [row.gold for row in rows], data, workers=2, cache=cache)
        seconds = time.perf_counter() - started
        cache.close()
    return seconds


def _peak_mib(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


if __name__ == "__main__":
    main()
