"""Generate the rows of the sample data set: questions about databases; no database is in two parts.

Deterministic from the seed. Row i of a part does not depend on the number of rows, so a smaller sample is a
prefix of a larger one.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

from jobs.tasks.rows import Row
from jobs.tasks.sql.prompt import make_row
from jobs.tasks.sql.sample.databases import Database, Table, Value, databases
from jobs.tasks.sql.sample.question_kinds import QuestionKind, kind_schedule
from launcher.outcome import Failure, Reason

PARTS = ("train", "validation", "test")
DEFAULT_ROWS = {"train": 480, "validation": 60, "test": 150}
#: The most rows of each part; a test generates that many.
MOST_ROWS = {"train": 3000, "validation": 500, "test": 1000}
#: Databases of the test and validation parts: (with one table, with two). The training part has the others.
_HELD_OUT = {"test": (10, 7), "validation": (4, 3)}
_MAX_ATTEMPTS = 400
#: Share of questions without joins about single-table databases, whose prompts are shorter.
_SINGLE_TABLE_SHARE = 0.7


def split(seed: int) -> dict[str, list[Database]]:
    """The databases of each part; no database is in two parts."""
    rng = random.Random(f"tuneyard sample split {seed}")
    single: list[Database] = []
    double: list[Database] = []
    for database in databases(seed):
        (single if len(database.tables) == 1 else double).append(database)
    rng.shuffle(single)
    rng.shuffle(double)
    parts: dict[str, list[Database]] = {}
    for part, (singles, doubles) in _HELD_OUT.items():
        parts[part] = single[:singles] + double[:doubles]
        single, double = single[singles:], double[doubles:]
    parts["train"] = single + double
    return parts


def generate(
    part: str,
    count: int,
    seed: int,
    directory: Path | None,
    beat: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Row]:
    """`count` rows of a part; their databases are written to `directory`/databases (None: not written).

    Raises Failure(BAD_DATA) if the sample does not have that many different questions.
    """
    found: list[Row] = []
    asked: set[tuple[str, str]] = set()
    golds: set[tuple[str, str]] = set()
    pool = split(seed)[part]
    connections = {database.name: database.connect() for database in pool}
    try:
        while len(found) < count:
            rng = random.Random(f"tuneyard sample row {seed} {part} {len(found)}")
            drawn = _draw(pool, connections, rng, len(found), asked, golds)
            if drawn is None:
                raise Failure(Reason.BAD_DATA, f"the sample has no more than {len(found)} {part} rows")
            database, question, gold = drawn
            asked.add((database.name, question))
            golds.add((database.name, gold))
            found.append(
                make_row(
                    f"{part}-{len(found) + 1:05}",
                    question=question,
                    gold=gold,
                    context=database.schema,
                    schema=database.schema,
                    db_id=database.name,
                    database=f"databases/{database.name}.sqlite",
                )
            )
            beat(len(found), count)
    finally:
        for connection in connections.values():
            connection.close()
    if directory is not None:
        used = {row.fields["db_id"] for row in found}
        for database in pool:
            if database.name in used:
                database.write(directory / "databases" / f"{database.name}.sqlite")
    return found


def _draw(
    pool: list[Database],
    connections: dict[str, sqlite3.Connection],
    rng: random.Random,
    index: int,
    asked: set[tuple[str, str]],
    golds: set[tuple[str, str]],
) -> tuple[Database, str, str] | None:
    """(database, question, gold), the question and the gold new in their database; None after _MAX_ATTEMPTS.

    `index` chooses the kind; the second half of the attempts draws any kind.
    """
    kinds = kind_schedule()
    for attempt in range(_MAX_ATTEMPTS):
        kind = kinds[index % len(kinds)] if attempt < _MAX_ATTEMPTS // 2 else rng.choice(kinds)
        single = not kind.linked and rng.random() < _SINGLE_TABLE_SHARE
        database = rng.choice([d for d in pool if not single or len(d.tables) == 1])
        tables = [table for table in database.tables if not kind.linked or table.parent is not None]
        if not tables:
            continue
        table = rng.choice(tables)
        slots = kind.draw(database, table, rng)
        if slots is None:
            continue
        question = rng.choice(kind.phrasings).format(**slots)
        gold = kind.query.format(**slots)
        if (database.name, question) in asked or (database.name, gold) in golds:
            continue
        if kind.ordered and _has_ties(database, table, slots["m"]):
            continue
        if _is_informative(connections[database.name].execute(gold).fetchall(), database, table, kind):
            return database, question, gold
    return None


def _has_ties(database: Database, table: Table, column_name: str) -> bool:
    """Whether a column has equal values, which would leave the order, and with LIMIT the rows, undetermined."""
    column = next(column for column in table.columns if column.name == column_name)
    values = database.column_values(table, column)
    return len(set(values)) < len(values)


def _is_informative(
    result: list[tuple[Value | None, ...]], database: Database, table: Table, kind: QuestionKind
) -> bool:
    """Whether a gold result can expose wrong queries: it has rows and no NULL, and its filter has an effect."""
    if not result or any(value is None for row in result for value in row) or result == [(0,)]:
        return False
    everything = len(database.rows[table.name])
    if " WHERE " in kind.query and kind.query.startswith("SELECT {n}"):
        return len(result) < everything
    if kind.name in ("count compare", "count equal"):
        return result != [(everything,)]
    return True
