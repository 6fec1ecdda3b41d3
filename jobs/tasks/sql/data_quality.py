"""Counts known kinds of fault in the rows of text-to-SQL data.

Schemas, gold queries and database files are untrusted: they are read in the scorer's sandbox, by processes with limits
on CPU time and memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.tasks.rows import Row
from jobs.tasks.sql.execution.records import CompileJob, DatabaseJob, DatabaseState
from jobs.tasks.sql.execution.worker_pool import LostJob, WorkerPool

Fault = dict[str, str | int]


@dataclass
class GoldCounts:
    """Rows whose gold does not compile on its schema, whose gold names every column of it, and whose schema is refused.

    Those of a schema that reached a limit of the sandbox are counted as `refused` and as `broken`.
    """

    broken: int = 0
    narrow: int = 0
    refused: int = 0


def find(part: str, rows: Sequence[Row], directory: Path) -> list[Fault]:
    """Faults of one part's rows as {"part", "what", "rows", "of"}; only those found in a row."""
    golds = compile_golds(rows)
    databases = Counter(row.fields["database"] for row in rows)
    missing = databases.pop(None, 0)
    states = database_states(directory / name for name in databases)
    empty = sum(count for name, count in databases.items() if states[directory / name].empty)
    counts = {
        "the gold query does not compile on a database built from the schema": golds.broken,
        "the schema reaches the sandbox's limits of CPU time or memory": golds.refused,
        "there is no database: answers can only be compared on generated rows": missing,
        "the database has a schema and no rows": empty,
    }
    if golds.narrow > len(rows) / 2:
        counts["the context names only columns that the gold query uses: schema linking is given away"] = (
            golds.narrow
        )
    return [{"part": part, "what": what, "rows": n, "of": len(rows)} for what, n in counts.items() if n]


def compile_golds(rows: Sequence[Row]) -> GoldCounts:
    """Compile every gold on an empty database of its schema."""
    by_schema: dict[str, list[str]] = {}
    for row in rows:
        by_schema.setdefault(row.fields["schema"], []).append(row.gold)
    jobs = [CompileJob(schema, tuple(golds)) for schema, golds in by_schema.items()]
    counts = GoldCounts()
    with WorkerPool(1) as pool:
        for job, result in zip(jobs, pool.map(jobs), strict=True):
            if isinstance(result, LostJob):
                counts.refused += len(job.golds)
                counts.broken += len(job.golds)
            else:
                counts.broken += result[0]
                counts.narrow += result[1]
    return counts


def database_states(paths: Iterable[Path]) -> dict[Path, DatabaseState]:
    """What each SQLite file holds; one that reaches the sandbox's limits has that as its problem."""
    unique = list(dict.fromkeys(paths))
    with WorkerPool(1) as pool:
        results = pool.map([DatabaseJob(str(path.absolute())) for path in unique])
    return {
        path: DatabaseState(problem=result.reason) if isinstance(result, LostJob) else result
        for path, result in zip(unique, results, strict=True)
    }
