"""Prepare one gold query and judge one answer in the sandbox, with or without a real database."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from jobs.tasks.sql.execution.records import GoldEntry, PrepareJob, Verdict
from jobs.tasks.sql.execution.schema import statements
from jobs.tasks.sql.execution.worker_pool import WorkerPool
from jobs.tasks.sql.judging import judge_job


def real_database(path: Path, script: str) -> str:
    """Write a database file."""
    with closing(apsw.Connection(str(path))) as connection:
        for statement in statements(script):
            connection.execute(statement)
    return str(path)


def prepared(gold: str, schema: str, database: str | None = None) -> GoldEntry:
    """The gold query's entry."""
    with WorkerPool(1) as pool:
        (entry,) = pool.map([PrepareJob(gold, database, schema, schema, seed=0)])
    assert isinstance(entry, GoldEntry), entry
    return entry


def judged(entry: GoldEntry, answer: str, database: str | None = None) -> Verdict:
    """The verdict on one answer."""
    assert entry.reference, entry.problem
    with WorkerPool(1) as pool:
        (verdict,) = pool.map([judge_job(entry, answer, database)])
    assert isinstance(verdict, Verdict), verdict
    return verdict
