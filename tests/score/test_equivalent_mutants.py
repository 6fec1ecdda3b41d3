"""Equivalent mutants: each rule applies where it should, and no generated database kills a mutant with a rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from one_sql_case import judged, prepared, real_database

from jobs.tasks.sql.execution import compare, connections
from jobs.tasks.sql.execution.database_generator import generate_database
from jobs.tasks.sql.execution.equivalent_mutants import equivalence_rule
from jobs.tasks.sql.execution.gold_plan import plan_gold
from jobs.tasks.sql.execution.gold_results import allowed_results
from jobs.tasks.sql.execution.mutants import Mutant, generate_mutants
from jobs.tasks.sql.execution.query_constraints import constraints_of
from jobs.tasks.sql.execution.query_runner import QueryLimits, run_query
from jobs.tasks.sql.execution.schema import from_text
from jobs.tasks.sql.execution.syntax import parse

SCHEMA = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, boss_id INTEGER REFERENCES t(id));"
    "CREATE TABLE u (uid INTEGER PRIMARY KEY, t_id INTEGER NOT NULL REFERENCES t(id), year INTEGER, name TEXT);"
    "CREATE TABLE v (v_id INTEGER, place TEXT, year INTEGER)"
)
TABLES = from_text(SCHEMA)
DATABASES = 24
LIMITS = QueryLimits(steps=3_000_000)

ONE_ROW = "the result has one row"
VALUE = "a value is the first row's"
IN = "inside IN, duplicates do not matter"
SET = "the set operation removes duplicates"
KEYS = "every group key is shown"
OWN_GROUP = "a shown identifier belongs to one group"
SHOWN = "an identifier is shown"
UNIQUE = "an identifier does not repeat"
NEVER_NULL = "an identifier is never NULL"
CONDITIONS = "the conditions leave no NULL"
FOUND = "the foreign key always finds its row"
NEEDED = "another condition needs the joined row"

J = "t AS a JOIN u AS b ON a.id = b.t_id"

EQUIVALENT = [
    ("SELECT avg(age), count(*) FROM t WHERE age > 3", "add DISTINCT", ONE_ROW),
    ("SELECT DISTINCT max(age) - min(age) FROM t", "drop DISTINCT", ONE_ROW),
    ("SELECT name, age FROM t ORDER BY age LIMIT 1", "add DISTINCT", ONE_ROW),
    ("SELECT * FROM t ORDER BY age DESC LIMIT 1", "add DISTINCT", ONE_ROW),
    ("SELECT count(*) FROM t ORDER BY count(*)", "drop ORDER BY", ONE_ROW),
    ("SELECT count(*) FROM t ORDER BY 1 DESC", "the other direction", ONE_ROW),
    ("SELECT sum(age) FROM t LIMIT 1", "drop LIMIT", ONE_ROW),
    ("SELECT sum(age) FROM t LIMIT 1", "LIMIT 2", ONE_ROW),
    ("SELECT name FROM t WHERE age = (SELECT year FROM u ORDER BY uid DESC LIMIT 1)", "drop LIMIT", VALUE),
    ("SELECT name FROM t WHERE age > (SELECT year FROM u ORDER BY uid DESC LIMIT 1)", "LIMIT 2", VALUE),
    ("SELECT age, count(*) FROM t GROUP BY age", "add DISTINCT", KEYS),
    ("SELECT count(*), a.name FROM t AS a GROUP BY name", "add DISTINCT", KEYS),
    ("SELECT age + 1 AS next, count(*) FROM t GROUP BY next", "add DISTINCT", KEYS),
    ("SELECT b.year FROM t AS a JOIN u AS b ON a.id = b.t_id GROUP BY year", "add DISTINCT", KEYS),
    ("SELECT id, name FROM t GROUP BY age", "add DISTINCT", OWN_GROUP),
    (f"SELECT a.id, count(*) FROM {J} GROUP BY a.name", "add DISTINCT", OWN_GROUP),
    ("SELECT id, age FROM t", "add DISTINCT", SHOWN),
    ("SELECT * FROM t WHERE age < 9", "add DISTINCT", SHOWN),
    ("SELECT v_id FROM v", "add DISTINCT", None),  # whole rows repeat where no key is declared
    ("SELECT name FROM t WHERE id IN (SELECT DISTINCT t_id FROM u)", "drop DISTINCT", IN),
    ("SELECT name FROM t WHERE EXISTS (SELECT DISTINCT year FROM u WHERE t_id = t.id)", "drop DISTINCT", IN),
    ("SELECT DISTINCT name FROM t EXCEPT SELECT name FROM u", "drop DISTINCT", SET),
    ("SELECT name FROM t INTERSECT SELECT DISTINCT name FROM u", "drop DISTINCT", SET),
    (
        "SELECT name FROM t WHERE age IN (SELECT year FROM u UNION SELECT year FROM v)",
        "UNION to UNION ALL",
        IN,
    ),
    (
        "SELECT name FROM t WHERE age IN (SELECT DISTINCT year FROM u UNION ALL SELECT year FROM v)",
        "drop DISTINCT",
        IN,
    ),
    ("SELECT count(id) FROM t WHERE age > 4", "count DISTINCT", UNIQUE),
    ("SELECT count(DISTINCT id) FROM t", "count all instead of DISTINCT", UNIQUE),
    ("SELECT count(*) FROM v", "count(*) to count(v_id)", NEVER_NULL),
    ("SELECT year, count(*) FROM u GROUP BY year", "count(*) to count(t_id)", NEVER_NULL),
    ("SELECT count(*) FROM t WHERE name LIKE 'a%'", "count(*) to count(name)", CONDITIONS),
    ("SELECT count(*) FROM t WHERE NOT name IN ('a', 'b')", "count(*) to count(name)", CONDITIONS),
    ("SELECT count(*) FROM t WHERE NOT name IS NULL", "count(*) to count(name)", CONDITIONS),
    ("SELECT a.name FROM u AS b JOIN t AS a ON b.t_id = a.id", "inner join to left join", FOUND),
    (f"SELECT a.name FROM {J} WHERE b.year > 5", "inner join to left join", NEEDED),
]

#: Gold queries with mutants that are not equivalent, though similar ones are.
WRONG = [
    ("SELECT name FROM t ORDER BY age DESC LIMIT 1", "the other direction"),
    ("SELECT name FROM t ORDER BY age DESC LIMIT 1", "drop ORDER BY"),
    ("SELECT name FROM t ORDER BY age DESC LIMIT 1", "LIMIT 2"),
    ("SELECT name FROM t ORDER BY age DESC LIMIT 1", "drop LIMIT"),
    ("SELECT name FROM t ORDER BY age LIMIT 1", "add DISTINCT"),
    ("SELECT name FROM t ORDER BY name LIMIT 1 OFFSET 1", "add DISTINCT"),
    ("SELECT avg(age) FROM t WHERE id IN (SELECT t_id FROM u ORDER BY year DESC LIMIT 3)", "the other direction"),
    ("SELECT avg(age) FROM t WHERE id IN (SELECT t_id FROM u ORDER BY year DESC LIMIT 3)", "drop ORDER BY"),
    ("SELECT avg(age) FROM t WHERE id IN (SELECT t_id FROM u ORDER BY year DESC LIMIT 3)", "drop LIMIT"),
    ("SELECT count(*) FROM t LIMIT 0", "drop LIMIT"),
    ("SELECT count(*) FROM t LIMIT 0", "LIMIT 1"),
    ("SELECT name FROM t WHERE age > (SELECT year % 9 FROM u ORDER BY uid LIMIT 0) OR age IS NULL", "drop LIMIT"),
    ("SELECT name FROM t WHERE id IN (SELECT t_id FROM u ORDER BY uid LIMIT 1)", "LIMIT 2"),
    ("SELECT name FROM (SELECT name FROM t ORDER BY id LIMIT 1)", "drop LIMIT"),
    ("SELECT max(age) - boss_id FROM t ORDER BY min(id)", "drop ORDER BY"),
    ("SELECT e.name FROM t AS e JOIN t AS m ON e.age = m.age WHERE e.name = 'x'", "inner join to left join"),
    ("SELECT e.name FROM t AS e JOIN t AS m ON e.boss_id = m.id", "inner join to left join"),
    ("SELECT b.name FROM u AS a JOIN t AS b ON a.t_id = b.id AND b.age > 3", "inner join to left join"),
    ("SELECT b.age FROM u AS a JOIN t AS b ON a.t_id = b.age", "inner join to left join"),
    ("SELECT name FROM t WHERE id IN (SELECT DISTINCT t_id FROM u ORDER BY t_id LIMIT 2)", "drop DISTINCT"),
    ("SELECT name FROM t WHERE age IN (SELECT count(*) FROM (SELECT DISTINCT year % 9 FROM u))", "drop DISTINCT"),
    ("SELECT count(*) FROM (SELECT name FROM t UNION SELECT name FROM u)", "UNION to UNION ALL"),
    ("SELECT name FROM t UNION SELECT name FROM u", "UNION to UNION ALL"),
    ("SELECT DISTINCT name FROM t UNION ALL SELECT name FROM u", "drop DISTINCT"),
    (f"SELECT b.name, count(*) FROM {J} GROUP BY a.name", "add DISTINCT"),
    (f"SELECT a.id FROM {J} GROUP BY b.year", "add DISTINCT"),
    ("SELECT age % 2 AS age FROM t GROUP BY age", "add DISTINCT"),
    ("SELECT sum(age) OVER (PARTITION BY name) FROM t", "add DISTINCT"),
    ("SELECT (SELECT max(year) FROM u WHERE u.t_id = t.id) FROM t", "add DISTINCT"),
    ("SELECT max(age, 3) FROM t", "add DISTINCT"),
    ("WITH t AS (SELECT 1 AS id FROM u) SELECT id FROM t", "add DISTINCT"),
    (f"SELECT count(a.id) FROM {J}", "count DISTINCT"),
    ("SELECT count(*) FROM t WHERE age IS NOT 5", "count(*) to count(age)"),
    ("SELECT count(*) FROM t WHERE NOT age IN (SELECT year FROM u WHERE year > 5000)", "count(*) to count(age)"),
    ("SELECT count(*) FROM v RIGHT JOIN t ON t.age = v.year", "count(*) to count(v_id)"),
    ("SELECT count(*) FROM t AS a JOIN v ON a.age > v.year RIGHT JOIN u ON u.year = v.year", "count(*) to count(age)"),
    ("SELECT age, count(*), (SELECT count(*) FROM t WHERE age > 3) FROM t GROUP BY age", "count(*) to count(age)"),
]  # fmt: skip
GOLDS = list(dict.fromkeys([gold for gold, *_ in EQUIVALENT] + [gold for gold, _ in WRONG]))


@cache
def made(gold: str) -> list[Mutant]:
    tree = parse(gold)
    assert tree is not None
    return generate_mutants(tree, TABLES)


def rule_of(gold: str, mutant: Mutant) -> str | None:
    tree = parse(gold)
    assert tree is not None
    return equivalence_rule(mutant, tree, TABLES)


def databases(gold: str) -> Iterator[bytes]:
    """Generated databases that satisfy the rules' assumptions: no dangling foreign keys."""
    tree = parse(gold)
    assert tree is not None
    for variant in range(DATABASES):
        image = generate_database(
            TABLES, frozenset({"t", "u", "v"}), constraints_of(tree, TABLES), 7, variant
        )
        with closing(connections.unguarded_image(image)) as connection:
            connection.execute("DELETE FROM u WHERE t_id IS NULL OR t_id NOT IN (SELECT id FROM t)")
            yield connection.serialize("main")


def is_killed(gold: str, mutant: str, image: bytes) -> bool:
    with closing(connections.open_image(image)) as connection:
        expected = allowed_results(connection, plan_gold(gold, parse(gold), TABLES), LIMITS)
        return not compare.same([expected], [run_query(connection, mutant, LIMITS)])


@pytest.mark.parametrize(("gold", "change", "expected"), EQUIVALENT)
def test_equivalence_rules(gold: str, change: str, expected: str | None) -> None:
    found = {mutant.change: rule_of(gold, mutant) for mutant in made(gold)}
    assert found[change] == expected


@pytest.mark.parametrize(("gold", "change"), WRONG)
def test_killable_mutant_has_no_equivalence_rule(gold: str, change: str) -> None:
    found = [mutant for mutant in made(gold) if mutant.change == change]
    assert any(is_killed(gold, mutant.sql, image) for image in databases(gold) for mutant in found)
    assert None in [rule_of(gold, mutant) for mutant in found]


@pytest.mark.parametrize("gold", GOLDS)
def test_no_database_kills_a_mutant_proved_equivalent(gold: str) -> None:
    called = [mutant for mutant in made(gold) if rule_of(gold, mutant) is not None]
    for image in databases(gold) if called else ():
        for mutant in called:
            assert not is_killed(gold, mutant.sql, image), (mutant, rule_of(gold, mutant))


BLIND = (
    "INSERT INTO t VALUES (1, 'a', 10, NULL), (2, 'b', 20, 1), (3, 'c', 30, 1);"
    "INSERT INTO u VALUES (1, 1, 2010, 'd'), (2, 2, 2011, 'e'), (3, 3, 2012, 'f')"
)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (
            "SELECT name FROM t WHERE age >= 10 ORDER BY age LIMIT 1",
            "SELECT name FROM t WHERE age >= 10 LIMIT 1",
        ),
        (f"SELECT a.id FROM {J} GROUP BY b.year", f"SELECT DISTINCT a.id FROM {J} GROUP BY b.year"),
        (
            "SELECT count(*) FROM (SELECT name FROM t UNION SELECT name FROM u)",
            "SELECT count(*) FROM (SELECT name FROM t UNION ALL SELECT name FROM u)",
        ),
        (
            "SELECT e.name FROM t AS e JOIN t AS m ON e.age = m.age WHERE e.name = 'b'",
            "SELECT e.name FROM t AS e LEFT JOIN t AS m ON e.age = m.age WHERE e.name = 'b'",
        ),
    ],
)
def test_generated_database_catches_what_the_real_one_misses(gold: str, answer: str, tmp_path: Path) -> None:
    real = real_database(tmp_path / "real.sqlite", f"{SCHEMA};{BLIND}")
    entry = prepared(gold, SCHEMA, real)
    assert entry.reference is not None
    assert entry.reference.real
    verdict = judged(entry, answer, real)
    assert not verdict.strict
    assert "(on database: generated" in (verdict.reason or "")
