"""One gold query and one answer through the sandbox, on a schema alone or with a real database."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from jobs.tasks.sql.execution.schema import statements
from jobs.tasks.sql.execution.worker_pool import WorkerPool
from jobs.tasks.sql.judging import judge_job


def real_database(path: Path, script: str) -> str:
    """Write a database file."""
    with closing(apsw.Connection(str(path))) as connection:
        for statement in statements(script):
            connection.execute(statement)
    return str(path)


def prepared(gold: str, schema: str, database: str | None = None) -> dict[str, Any]:
    """The gold query's entry."""
    job = {"task": "prepare", "cpu_s": 300, "seed": 0, "sql": gold, "database": database}
    with WorkerPool(1) as pool:
        (entry,) = pool.map([{**job, "schema": schema, "context": schema}])
    assert isinstance(entry, dict), entry
    return entry


def judged(entry: dict[str, Any], answer: str, database: str | None = None) -> dict[str, Any]:
    """The verdict on one answer."""
    assert entry["valid"], entry["problem"]
    with WorkerPool(1) as pool:
        (verdict,) = pool.map([judge_job(entry, answer, database)])
    assert isinstance(verdict, dict), verdict
    return verdict
