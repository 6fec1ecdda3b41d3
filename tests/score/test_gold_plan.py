"""Gold plans: sort keys resolve to aliases, columns and expressions by SQLite's rules."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from one_sql_case import judged, prepared, real_database

from jobs.tasks.sql.execution import compare, connections
from jobs.tasks.sql.execution.gold_plan import plan_gold
from jobs.tasks.sql.execution.gold_results import allowed_results
from jobs.tasks.sql.execution.query_runner import QueryLimits, run_query
from jobs.tasks.sql.execution.schema import from_text
from jobs.tasks.sql.execution.syntax import parse

SCHEMA = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, w REAL);"
    "CREATE TABLE u (id INTEGER, d REAL, age INTEGER)"
)
TABLES = from_text(SCHEMA)
ROWS = (
    "INSERT INTO t VALUES (1, 'a', 3, 9.0), (2, 'c', 1, 5.5), (3, 'B', 2, 1.2), (4, 'x', 5, 10.0), (5, 'b', 5, 1.6);"
    "INSERT INTO t VALUES (6, 'd', 5, 1.4);"
    "INSERT INTO u VALUES (2, 9, 4), (4, 1, 3), (5, 2, 2)"
)
#: (gold, output positions of its sort keys: from 0, appended ones from the end; None: exact order)
GOLDS: list[tuple[str, tuple[int, ...] | None]] = [
    ("SELECT name, age * 2 AS d FROM t ORDER BY d + 0", (-1,)),
    ("SELECT name, -age AS d FROM t ORDER BY -d, name", (-1, 0)),
    ("SELECT name, -age AS d FROM t ORDER BY d", (1,)),
    ("SELECT name, -age AS d FROM t ORDER BY (d)", (1,)),
    ("SELECT name AS n FROM t ORDER BY n COLLATE NOCASE", (0,)),
    ("SELECT name, -age AS w FROM t ORDER BY w", (1,)),  # the alias
    ("SELECT name, -age AS w FROM t ORDER BY w + 0", (-1,)),  # the column
    ("SELECT name, -age AS w FROM t ORDER BY abs(w)", (-1,)),
    ("SELECT name, -age AS w FROM t ORDER BY (SELECT w)", (-1,)),
    ("SELECT name, -age AS oid FROM t ORDER BY oid + 0", (-1,)),
    ("SELECT name, -age AS w FROM t ORDER BY t.w", (-1,)),
    ("SELECT t.age, -w AS age FROM t ORDER BY age", (1,)),
    ("SELECT -age AS d, w AS d FROM t ORDER BY d", (0,)),
    ("SELECT -age AS d, w AS d FROM t ORDER BY d + 0", (-1,)),
    ('SELECT name, -age AS "my d" FROM t ORDER BY "my d" + 0', (-1,)),
    ("SELECT age AS a, count(*) AS n FROM t GROUP BY a ORDER BY n * 1.0, -a", (-2, -1)),
    ("SELECT name, row_number() OVER (ORDER BY age, id) AS m FROM t ORDER BY -m", (-1,)),
    ("SELECT CAST(w AS INTEGER), name FROM t ORDER BY w", (-1,)),
    ("SELECT CAST(w AS INTEGER) AS w, name FROM t ORDER BY w", (0,)),
    ("SELECT 'w', name FROM t ORDER BY w", (-1,)),
    ("SELECT 5, name FROM t ORDER BY '5', id", (-2, -1)),
    ("SELECT t.w, name FROM t ORDER BY W", (0,)),
    ("SELECT name = 'B', id FROM t ORDER BY name = 'b'", (-1,)),
    ("SELECT name, -age FROM t ORDER BY (2)", (1,)),
    ("SELECT name, -age FROM t ORDER BY 1 + 0", (-1,)),
    ("SELECT *, -age AS d FROM t ORDER BY d", (-1,)),
    ("SELECT *, -age AS d FROM t ORDER BY d + 0", (-1,)),
    ("SELECT DISTINCT age FROM t ORDER BY age", (0,)),
    ("SELECT u.id FROM t LEFT JOIN u USING (id) ORDER BY id", (-1,)),
    ("SELECT *, -w AS w FROM t ORDER BY w", None),
    ("SELECT name, -age AS d FROM t ORDER BY (SELECT d)", None),
    ("SELECT name, -age AS d FROM (SELECT name, age, w AS d FROM t) ORDER BY d + 0", None),
    ("WITH t AS (SELECT 1 AS d, 2 AS age) SELECT -age AS d FROM t ORDER BY d + 0", None),
    ("SELECT DISTINCT name, -age AS d FROM t ORDER BY d + 0, name", None),
]


@pytest.mark.parametrize(("gold", "keys"), GOLDS)
def test_sort_keys_match_sqlite(gold: str, keys: tuple[int, ...] | None) -> None:
    plan = plan_gold(gold, parse(gold), TABLES)
    assert (plan.keys if plan.mode == "choice" else None) == keys
    with closing(connections.unguarded_image()) as connection:
        connection.execute(f"{SCHEMA};{ROWS}")
        expected = allowed_results(connection, plan, QueryLimits())
        assert compare.as_is(expected, run_query(connection, gold, QueryLimits()))


def test_unknown_schema_falls_back_to_exact_order() -> None:
    gold = "SELECT name, age * 2 AS d FROM t ORDER BY d + 0"
    assert plan_gold(gold, parse(gold)).mode == "exact"


D, CUT = (
    "SELECT name, age * 2 AS d FROM t ORDER BY d + 0",
    "SELECT CAST(w AS INTEGER), name FROM t ORDER BY w",
)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (D, "SELECT name, age + age FROM t ORDER BY age, name", True),
        (D, "SELECT name, age + age FROM t ORDER BY -age", False),
        (
            "SELECT name AS n FROM t ORDER BY n COLLATE NOCASE",
            "SELECT name FROM t ORDER BY lower(name)",
            True,
        ),
        (CUT, "SELECT CAST(w AS INTEGER), name FROM t ORDER BY w, id", True),
        (CUT, "SELECT CAST(w AS INTEGER), name FROM t ORDER BY CAST(w AS INTEGER), w DESC", False),
    ],
)
def test_answers_must_have_the_golds_order(gold: str, answer: str, right: bool, tmp_path: Path) -> None:
    database = real_database(tmp_path / "real.sqlite", f"{SCHEMA};{ROWS}")
    entry = prepared(gold, SCHEMA, database)
    assert judged(entry, gold, database).strict
    assert judged(entry, answer, database).strict is right


def test_alias_in_a_sort_key_without_a_real_database() -> None:
    entry = prepared(D, SCHEMA)
    assert judged(entry, D).strict
    assert judged(entry, "SELECT name, age + age FROM t ORDER BY age, name").strict
    assert not judged(entry, "SELECT name, age + age FROM t ORDER BY -age").strict
