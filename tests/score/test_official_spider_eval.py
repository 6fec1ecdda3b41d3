"""The official Spider evaluation with its quirks, the rules of disagreement, and Spider's hardness."""

import pytest
from small_sql_data import SqlData

from jobs.tasks.sql.execution import disagreement, official_spider_eval
from jobs.tasks.sql.execution.compare import Table
from jobs.tasks.sql.execution.hardness import hardness
from jobs.tasks.sql.execution.syntax import parse


@pytest.mark.parametrize(
    ("gold", "answer", "ordered", "equal"),
    [
        (Table(1, []), Table(3, []), False, True),
        (Table(1, [(1,)]), Table(1, [(1.0,)]), False, True),
        (Table(2, [(1, 10)]), Table(2, [(1.0, 10)]), False, False),
        (Table(1, [(0.1 + 0.2,)]), Table(1, [(0.3,)]), False, False),
        (Table(1, [(1,)]), Table(1, [("1",)]), False, False),
        (Table(2, [(1, 2)]), Table(2, [(2, 1)]), True, True),
        (Table(1, [(1,), (2,)]), Table(1, [(2,), (1,)]), False, True),
        (Table(1, [(1,), (2,)]), Table(1, [(2,), (1,)]), True, False),
        (Table(1, [(1,), (1,)]), Table(1, [(1,)]), False, False),
    ],
)
def test_official_equality(gold: Table, answer: Table, ordered: bool, equal: bool) -> None:
    assert official_spider_eval.equal(gold, answer, ordered) is equal


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELECT DISTINCT a FROM t", "SELECT  a FROM t"),
        ("SELECT count(distinct a)", "SELECT count( a)"),
        ("SELECT 'DISTINCT' FROM t", "SELECT 'DISTINCT' FROM t"),
        ("SELECT a WHERE b > = 3 AND c ! = 4", "SELECT a WHERE b >= 3 AND c != 4"),
        ("SELECT YEAR(CURDATE()) - a", "SELECT 2020- a"),
    ],
)
def test_official_rewriting(sql: str, text: str) -> None:
    assert official_spider_eval.rewritten(sql) == text


@pytest.mark.parametrize(
    ("question", "answer", "rule"),
    [
        (2, "SELECT name, 'France' FROM singer WHERE country = 'France' AND id < 3", disagreement.GENERATED),
        (3, "SELECT name FROM singer JOIN concert ON singer.id = singer_id WHERE year = 2014", disagreement.GENERATED),
        (7, "SELECT name, age FROM singer WHERE age > 100", disagreement.EMPTY),
        (1, "SELECT name FROM singer ORDER BY age DESC, id DESC", disagreement.TIES),
        (5, "SELECT name FROM singer ORDER BY age DESC, id DESC LIMIT 2", disagreement.LIMIT),
    ],
)  # fmt: skip
def test_disagreement_has_a_rule(sql_data: SqlData, question: int, answer: str, rule: str) -> None:
    found = sql_data.one(question, answer)
    assert found.scores["strict"] != found.scores["official"]
    assert found.notes == {"strict_and_official": rule}


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("SELECT name FROM t", "easy"),
        ("SELECT name FROM t WHERE a = 1", "easy"),
        ("SELECT count(*) FROM t", "easy"),
        ("SELECT a, b FROM t WHERE c = 1", "medium"),
        ("SELECT a, count(*) FROM t GROUP BY a", "medium"),
        ("SELECT a FROM t JOIN u ON t.id = u.id WHERE u.b = 1", "medium"),
        ("SELECT a FROM t GROUP BY a ORDER BY count(*) DESC LIMIT 1", "hard"),
        ("SELECT a FROM t WHERE b IN (SELECT b FROM u)", "hard"),
        ("SELECT a FROM t UNION SELECT b FROM u", "hard"),
        ("SELECT a FROM t WHERE b = 1 EXCEPT SELECT a FROM t WHERE b = 2 AND c = 3", "hard"),
        ("SELECT a, b FROM t WHERE c IN (SELECT c FROM u) AND d LIKE 'x'", "extra"),
        ("SELECT a FROM t JOIN u ON t.i = u.i JOIN v ON u.j = v.j WHERE b = 1 ORDER BY c LIMIT 1", "extra"),
        ("nothing", "unknown"),
    ],
)
def test_hardness(sql: str, level: str) -> None:
    assert hardness(parse(sql)) == level
