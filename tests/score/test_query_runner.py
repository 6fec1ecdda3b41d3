"""Queries on guarded connections: one statement, limits, undecodable text, read-only files."""

import json

import apsw
import pytest
from small_sql_data import QUESTIONS, SqlData

from jobs.tasks.sql.execution import connections, gold_results
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, column_names, run_query

LIMITS = QueryLimits()
#: Text that is not UTF-8, with a number and a blob.
UNDECODABLE = (
    "SELECT CAST(x'ff41' AS TEXT) AS a, 2 AS b, x'ff41' AS c UNION ALL SELECT 'z', 1, NULL ORDER BY b DESC"
)


def empty() -> apsw.Connection:
    return connections.open_image(database("CREATE TABLE t (a)"))


def database(*statements: str) -> bytes:
    connection = connections.unguarded_image()
    for statement in statements:
        connection.execute(statement)
    return connection.serialize("main")


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "SELECT 1;;\n/* and */ DROP TABLE t", "SELECT 1; nonsense"]
)
def test_only_one_statement_runs(sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        run_query(empty(), sql, LIMITS)
    assert caught.value.kind == "several statements"


@pytest.mark.parametrize(
    "sql", ["SELECT 1;", "SELECT 1 ; -- that is all", "SELECT 1 /* or */;;\n /* not */ ;"]
)
def test_trailing_blanks_and_comments_are_allowed(sql: str) -> None:
    assert run_query(empty(), sql, LIMITS).rows == [(1,)]


@pytest.mark.parametrize(("sql", "rows"), [("SELECT a, a FROM t", []), ("SELECT 1, 2 WHERE 0", [])])
def test_empty_result_has_a_width(sql: str, rows: list[object]) -> None:
    found = run_query(empty(), sql, LIMITS)
    assert (found.width, found.rows) == (2, rows)


def test_undecodable_text_keeps_row_and_order() -> None:
    found = run_query(empty(), UNDECODABLE + ";", LIMITS)
    assert found.rows == [("\udcffA", 2, b"\xffA"), ("z", 1, None)]
    assert found.undecodable


def test_drop_undecodable_drops_invalid_bytes() -> None:
    found = run_query(empty(), UNDECODABLE, LIMITS, drop_undecodable=True)
    assert found.rows == [("A", 2, b"\xffA"), ("z", 1, None)]


def test_limits_hold_for_undecodable_text() -> None:
    many = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT CAST(x'ff' AS TEXT), i FROM n"
    )
    with pytest.raises(QueryError) as caught:
        run_query(empty(), many, QueryLimits(steps=1_000_000))
    assert caught.value.kind == "too slow"


def test_replace_image_replaces_content_and_keeps_the_authorizer() -> None:
    connection = connections.open_image(database("CREATE TABLE old (a)", "INSERT INTO old VALUES (1)"))
    assert run_query(connection, "SELECT a FROM old", LIMITS).rows == [(1,)]
    connections.replace_image(connection, database("CREATE TABLE new (a)", "INSERT INTO new VALUES (2)"))
    assert run_query(connection, "SELECT a FROM new", LIMITS).rows == [(2,)]
    for sql, kind in (
        ("SELECT a FROM old", "unknown table"),
        ("ATTACH ':memory:' AS other", "refused"),
        ("INSERT INTO new VALUES (3)", "refused"),
        ("SELECT load_extension('x')", "refused"),
        ("SELECT zeroblob(200000)", "too large"),
    ):
        with pytest.raises(QueryError) as caught:
            run_query(connection, sql, LIMITS)
        assert caught.value.kind == kind, sql


def test_column_names_do_not_run_the_query() -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) AS many, max(i) FROM n"
    )
    assert column_names(empty(), endless) == ["many", "max(i)"]
    with pytest.raises(QueryError):
        column_names(empty(), "SELECT nothing FROM nowhere")


def test_files_are_opened_read_only(sql_data: SqlData) -> None:
    before = sql_data.database.read_bytes()
    connection = connections.open_file(sql_data.database)
    assert run_query(connection, QUESTIONS[0][1], LIMITS).rows == [(5,)]
    with pytest.raises(QueryError) as caught:
        run_query(connection, "DELETE FROM singer", LIMITS)
    assert caught.value.kind == "refused"
    assert sql_data.database.read_bytes() == before
    assert [path.name for path in sql_data.database.parent.iterdir()] == [sql_data.database.name]


@pytest.mark.parametrize("values", ["1, 'a', NULL, 2.5", "1, x'00ff', '00ff', NULL", "x'', '', 0, x'ff'"])
def test_expected_results_survive_json(values: str) -> None:
    expected = gold_results.allowed_results(
        empty(), GoldPlan(f"SELECT {values} UNION ALL SELECT 1, 2, 3, 4", "exact"), LIMITS
    )
    kept = gold_results.from_json(json.loads(json.dumps(gold_results.to_json(expected))))
    assert [(list(one.rows), one.take) for one in kept.segments] == [
        (list(one.rows), one.take) for one in expected.segments
    ]
