"""Verdicts on SQL answers: right, wrong with a reason, normalised match, flags."""

import dataclasses

import pytest
from small_sql_data import QUESTIONS, SqlData

from jobs.tasks.sql.judging import score


def test_gold_is_right_by_every_measure(sql_data: SqlData) -> None:
    for found in sql_data.score([sql for _, sql in QUESTIONS]):
        assert found.valid_gold
        assert found.reason is None
        assert all(found.scores.values())


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (0, "select COUNT(id) from singer;"),
        (0, "```sql\nSELECT count(*) FROM singer\n```\nIt counts them."),
        (1, "SELECT name FROM singer ORDER BY age DESC, name DESC"),  # ties are free
        (2, "SELECT country, name FROM singer WHERE country = 'France'"),  # columns by content
        (2, "SELECT name, 'France' FROM singer WHERE country LIKE 'France'"),
        (3, "SELECT DISTINCT name FROM singer WHERE id IN (SELECT singer_id FROM concert WHERE year = 2014)"),
        (4, "SELECT name FROM singer WHERE age = (SELECT max(age) FROM singer)"),
        (5, "SELECT name FROM singer ORDER BY age DESC, id DESC LIMIT 2"),  # either of two of the same age
        (6, "SELECT sum(weight) / count(*) FROM singer WHERE country = 'Chad'"),  # floats by tolerance
    ],
)
def test_equivalent_answers_are_right(sql_data: SqlData, question: int, answer: str) -> None:
    found = sql_data.one(question, answer)
    assert found.scores["strict"], found.reason
    assert found.reason is None


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        (0, "SELECT count(*) FROM concert", "wrong rows: 1 missing, 1 extra"),
        (0, "SELECT count(*) FROM", "syntax error"),
        (0, "SELECT count(*) FROM singers", "unknown table: no such table: singers"),
        (0, "SELECT count(nme) FROM singer", "unknown column: no such column: nme"),
        (0, "SELECT stddev(age) FROM singer", "unknown function"),
        (0, "I do not know.", "syntax error"),
        (0, "", "empty: the answer holds no query"),
        (0, "-- nothing", "not a query"),
        (1, "SELECT name FROM singer ORDER BY age", "wrong order"),
        (1, "SELECT name FROM singer", "wrong order"),
        (2, "SELECT name FROM singer WHERE country = 'France'", "wrong columns: 1 instead of 2"),
        (2, "SELECT name, country FROM singer", "wrong rows: 0 missing, 3 extra"),
        (3, "SELECT name FROM singer JOIN concert ON singer.id = singer_id", "wrong rows: 0 missing, 2 extra"),
        (5, "SELECT name FROM singer ORDER BY age LIMIT 2", "wrong rows: 2 missing, 2 extra"),
    ],
)  # fmt: skip
def test_wrong_answers_have_a_reason(sql_data: SqlData, question: int, answer: str, reason: str) -> None:
    found = sql_data.one(question, answer)
    assert not found.scores["strict"]
    assert found.reason is not None
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("SELECT name FROM singer WHERE age  >  20", "select NAME from Singer where age>20", True),
        ("SELECT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.singer_id",
         "SELECT s.name FROM singer s INNER JOIN concert c ON s.id = c.singer_id", True),
        ('SELECT name FROM singer WHERE country = "France"', "SELECT name FROM singer WHERE country = 'France'", True),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age ASC", True),
        ("SELECT count(*) FROM singer WHERE age != 3", "SELECT COUNT(*) AS n FROM singer WHERE age <> 3", True),
        ("SELECT name FROM singer WHERE age > 20", "SELECT name FROM singer WHERE age > 21", False),
        ("SELECT name FROM singer", "SELECT DISTINCT name FROM singer", False),
        ("SELECT name FROM singer WHERE country = 'France'", "SELECT name FROM singer WHERE country = 'france'", False),
    ],
)  # fmt: skip
def test_normalised_match(gold: str, answer: str, equal: bool) -> None:
    from jobs.tasks.sql.execution.normal_form import normalised
    from jobs.tasks.sql.execution.syntax import parse

    columns = frozenset({"id", "name", "country", "age", "singer_id", "year"})
    assert (normalised(parse(gold), columns) == normalised(parse(answer), columns)) is equal


def gold_instead(sql_data: SqlData, gold: str) -> None:
    """Replace the gold query of question 0."""
    row = sql_data.rows[0]
    messages = (*row.messages[:-1], {"role": "assistant", "content": gold})
    sql_data.rows[0] = dataclasses.replace(row, messages=messages)


def test_both_empty_is_flagged(sql_data: SqlData) -> None:
    gold_instead(sql_data, "SELECT name FROM singer WHERE age > 100 AND age < 50")
    found = sql_data.one(0, "SELECT country FROM singer WHERE age > 100 AND age < 40")
    assert found.scores["strict"]
    assert found.flags["both_empty"]
    assert not sql_data.one(1, QUESTIONS[1][1]).flags["both_empty"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("SELECT count(*), (SELECT name FROM singer ORDER BY id LIMIT 1) FROM singer", True),
        ("SELECT count(*), (SELECT name FROM singer ORDER BY id DESC LIMIT 1) FROM singer", True),
        ("SELECT count(*), max(country) FROM singer", False),
    ],
)
def test_both_results_of_a_nondeterministic_gold_are_right(
    sql_data: SqlData, answer: str, right: bool
) -> None:
    gold_instead(sql_data, "SELECT name, count(*) FROM singer")
    found = sql_data.one(0, answer)
    assert found.scores["strict"] is right
    assert found.flags["ambiguous_gold"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("SELECT a.id, b.id, c.name, d.id FROM singer a, singer b, singer c, singer d", True),
        (
            "SELECT d.id, c.name, b.id, a.id FROM singer a, singer b, singer c, singer d ORDER BY 3, 1, 2",
            True,
        ),
        ("SELECT a.id, b.id, c.name, a.id FROM singer a, singer b, singer c, singer d", False),
        ("SELECT a.id, b.id, c.name, d.id FROM singer a, singer b, singer c, singer d LIMIT 624", False),
    ],
)
def test_results_too_large_to_store_are_judged_the_same(sql_data: SqlData, answer: str, right: bool) -> None:
    gold_instead(sql_data, "SELECT a.id, b.id, c.name, d.id FROM singer a, singer b, singer c, singer d")
    found = score(sql_data.rows[:1], [answer], sql_data.directory, workers=1)
    reference = found.golds[0].reference
    assert reference is not None
    assert reference.expected[0].results is None, "the result is too large to store"
    assert found.rows[0].scores["strict"] is right
    assert found.rows[0].scores["official"] is right


def test_verdicts_do_not_depend_on_the_number_of_workers(sql_data: SqlData) -> None:
    answers = ["SELECT name FROM singer", "nothing", *[sql for _, sql in QUESTIONS[2:]]]
    assert sql_data.score(answers, workers=1) == sql_data.score(answers, workers=3)


def test_invalid_gold_is_excluded(sql_data: SqlData) -> None:
    gold_instead(sql_data, "SELECT nope FROM singer")
    found = sql_data.one(0, "SELECT count(*) FROM singer")
    assert not found.valid_gold
    assert found.reason is not None
    assert found.reason.startswith("the gold query does not run")
