"""Nondeterministic gold queries: detection, and answers that return any of their results are right."""

import dataclasses
from collections.abc import Callable
from contextlib import closing

import pytest
from small_sql_data import SqlData

from jobs.measures.row_score import RowScore
from jobs.tasks.sql.execution import connections, gold_results
from jobs.tasks.sql.execution.gold_plan import plan_gold
from jobs.tasks.sql.execution.nondeterminism import resolved_variants
from jobs.tasks.sql.execution.query_runner import QueryLimits
from jobs.tasks.sql.execution.syntax import parse
from jobs.tasks.sql.judging import score

LIMITS = QueryLimits()
#: Two singers are 30 years old, and two countries have two singers each.
OF_AN_AGE = (
    "SELECT country, weight FROM singer WHERE id = (SELECT id FROM singer ORDER BY abs(age - 30) LIMIT 1)"
)
OF_A_COUNTRY = (
    "SELECT name FROM singer WHERE country = "
    "(SELECT country FROM singer GROUP BY country ORDER BY count(*) DESC LIMIT 1)"
)
BARE = "SELECT country, name, count(*) FROM singer GROUP BY country"


@pytest.fixture
def judged(sql_data: SqlData) -> Callable[[str, list[str]], list[RowScore]]:
    def judge(gold_sql: str, answers: list[str]) -> list[RowScore]:
        row = sql_data.rows[0]
        messages = (*row.messages[:-1], {"role": "assistant", "content": gold_sql})
        rows = [dataclasses.replace(row, id=str(n), messages=messages) for n in range(len(answers))]
        return score(rows, answers, sql_data.directory, workers=1).rows

    return judge


@pytest.mark.parametrize(
    ("sql", "right", "wrong"),
    [
        (
            OF_AN_AGE,
            [OF_AN_AGE.replace(" LIMIT", ", id LIMIT"), OF_AN_AGE.replace(" LIMIT", ", id DESC LIMIT")],
            [OF_AN_AGE.replace(" LIMIT", " DESC LIMIT")],
        ),
        (
            OF_A_COUNTRY,
            [
                OF_A_COUNTRY.replace("DESC", "DESC, country DESC"),
                OF_A_COUNTRY.replace("DESC", "DESC, country"),
            ],
            ["SELECT name FROM singer WHERE country = 'Turkey'"],
        ),
        (
            BARE,
            [BARE.replace("name", "min(name)"), BARE.replace("name", "max(name)")],
            [BARE.replace("name", "NULL"), BARE.replace("count(*)", "max(age)")],
        ),
    ],
    ids=["row", "group", "bare column"],
)
def test_all_results_of_a_nondeterministic_gold_are_right(
    judged: Callable[[str, list[str]], list[RowScore]], sql: str, right: list[str], wrong: list[str]
) -> None:
    found = judged(sql, [sql, *right, *wrong])
    assert [row.scores["strict"] for row in found] == [True] * (1 + len(right)) + [False] * len(wrong)
    assert found[0].flags["ambiguous_gold"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT country FROM singer WHERE age = (SELECT age FROM singer ORDER BY age DESC LIMIT 1)",  # equal ties
        "SELECT country, count(*) FROM singer GROUP BY country",
        "SELECT id, name, count(*) FROM singer GROUP BY id",  # one name for an id
        "SELECT name, max(age) FROM singer GROUP BY country",  # from the row that holds the maximum
        "SELECT name FROM singer ORDER BY age DESC LIMIT 1",  # compare.py knows what this leaves open
    ],
)
def test_deterministic_gold_is_not_flagged(
    judged: Callable[[str, list[str]], list[RowScore]], sql: str
) -> None:
    (found,) = judged(sql, [sql])
    assert found.scores["strict"]
    assert not found.flags["ambiguous_gold"]


@pytest.mark.parametrize(
    ("sql", "ties", "stable"),
    [
        ("SELECT b FROM t WHERE a = (SELECT a FROM t ORDER BY b LIMIT 1)", True, True),
        ("SELECT a FROM t WHERE a = (SELECT a FROM t ORDER BY b LIMIT 1)", True, False),
        ("SELECT a FROM t WHERE a = (SELECT a FROM t ORDER BY b LIMIT 1)", False, True),
        ("SELECT a FROM t WHERE a IN (SELECT a FROM t UNION SELECT a FROM t ORDER BY a LIMIT 1)", True, True),
        ("SELECT count(*) FROM (SELECT a FROM t ORDER BY b LIMIT 1)", True, True),
        ("SELECT a, count(*) FROM t GROUP BY b", True, False),
        ("SELECT c, count(*) FROM t GROUP BY b", True, False),  # NULL or a text: min() would not see it
        ("SELECT b, count(*) FROM t GROUP BY b HAVING a > 1", True, False),
        ("SELECT T.b AS a, count(*) FROM t AS T GROUP BY b ORDER BY a", True, True),  # an output of that name
        ("SELECT b % 2 AS k, count(*) FROM t GROUP BY k", True, True),
        ("SELECT x.a FROM (SELECT a, count(*) FROM t GROUP BY b) AS x", True, False),
    ],
)
def test_is_deterministic_if_all_choices_return_the_same(sql: str, ties: bool, stable: bool) -> None:
    plan = plan_gold(sql, parse(sql))
    with closing(connections.unguarded_image()) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER, c TEXT)")
        connection.execute("INSERT INTO t VALUES (1, 5, 'x'), (2, ?, NULL), (3, 7, 'x')", (5 if ties else 6,))
        image = connection.serialize("main")
    with closing(connections.open_image(image)) as connection:
        expected = gold_results.allowed_results(connection, plan, LIMITS)
    assert gold_results.is_deterministic(image, plan, expected, LIMITS) is stable


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM singer WHERE age > 20",
        "SELECT name FROM singer ORDER BY age LIMIT 1",
        "SELECT country, count(*) FROM singer GROUP BY country",
        "not a query LIMIT",
    ],
)
def test_queries_without_limit_or_group_have_no_variants(sql: str) -> None:
    assert resolved_variants(sql) == ()
