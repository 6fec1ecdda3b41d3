"""Mutants of every kind, the databases that kill them, and the kill rate."""

import pytest

from jobs.tasks.sql.execution.equivalent_mutants import equivalence_rule
from jobs.tasks.sql.execution.kill_rate import kill_rate
from jobs.tasks.sql.execution.mutants import MUTANT_KINDS, generate_mutants
from jobs.tasks.sql.execution.prepare_gold import prepare_gold
from jobs.tasks.sql.execution.records import GoldEntry, PrepareJob
from jobs.tasks.sql.execution.schema import from_text
from jobs.tasks.sql.execution.syntax import parse

SCHEMA = (
    "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT, age INTEGER);\n"
    "CREATE TABLE concert (id INTEGER PRIMARY KEY, singer_id INTEGER, year INTEGER, "
    "FOREIGN KEY (singer_id) REFERENCES singer(id));"
)
GOLDS = [
    "SELECT DISTINCT country FROM singer WHERE age > 20",
    "SELECT country, count(*) FROM singer GROUP BY country HAVING count(*) >= 2",
    "SELECT name FROM singer ORDER BY age DESC LIMIT 1",
    "SELECT name FROM singer AS a JOIN concert AS b ON a.id = b.singer_id WHERE b.year = 2014 AND country = 'France'",
    "SELECT name FROM singer WHERE country LIKE '%an%'",
    "SELECT name FROM singer WHERE id NOT IN (SELECT singer_id FROM concert)",
    "SELECT name FROM singer WHERE age BETWEEN 20 AND 30 EXCEPT SELECT name FROM singer WHERE country = 'Chad'",
    "SELECT avg(age), max(age) FROM singer WHERE country = \"France\"",
    "SELECT country FROM singer GROUP BY country ORDER BY count(*) DESC LIMIT 3",
]  # fmt: skip


def made(gold: str, schema: str = SCHEMA) -> GoldEntry:
    return prepare_gold(PrepareJob(gold, None, schema, schema, seed=0))


def test_mutants_of_every_kind() -> None:
    schema = from_text(SCHEMA)
    found = {m.kind for gold in GOLDS for m in generate_mutants(parse(gold), schema)}  # type: ignore[arg-type]
    assert found == set(MUTANT_KINDS)


@pytest.mark.parametrize("gold", GOLDS)
def test_mutants_differ_from_the_query_and_from_each_other(gold: str) -> None:
    tree = parse(gold)
    assert tree is not None
    texts = [m.sql for m in generate_mutants(tree, from_text(SCHEMA))]
    assert len(texts) == len(set(texts)) > 3
    assert tree.sql(dialect="sqlite") not in texts
    assert tree == parse(gold)


@pytest.mark.parametrize("gold", GOLDS)
def test_selected_databases_kill_all_but_equivalent_mutants(gold: str) -> None:
    entry = made(gold)
    missed = [(mutant.change, mutant.sql) for mutant in entry.survivors if mutant.rule is None]
    assert len(missed) <= 1, missed
    assert entry.reference is not None
    assert 1 <= len(entry.reference.images) <= 8


def test_prepare_gold_is_deterministic() -> None:
    assert made(GOLDS[3]) == made(GOLDS[3])


@pytest.mark.parametrize(
    ("gold", "change", "expected"),
    [
        ("SELECT count(*) FROM singer", "add DISTINCT", "the result has one row"),
        ("SELECT country, count(*) FROM singer GROUP BY country", "add DISTINCT", "every group key is shown"),
        ("SELECT id, name FROM singer", "add DISTINCT", "an identifier is shown"),
        ("SELECT name FROM singer", "add DISTINCT", None),
        ("SELECT count(*) FROM concert", "count(*) to count(singer_id)", "an identifier is never NULL"),
        ("SELECT count(*) FROM singer WHERE age > 3", "count(*) to count(age)", None),
        (
            "SELECT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.singer_id WHERE T2.year = 2014",
            "inner join to left join",
            "another condition needs the joined row",
        ),
        (
            "SELECT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.singer_id",
            "inner join to left join",
            None,
        ),
        (
            "SELECT T1.name FROM concert AS T2 JOIN singer AS T1 ON T1.id = T2.singer_id",
            "inner join to left join",
            "the foreign key always finds its row",
        ),
    ],
)
def test_equivalence_rule_of_simple_mutants(gold: str, change: str, expected: str | None) -> None:
    schema, tree = from_text(SCHEMA), parse(gold)
    assert tree is not None
    found = {m.change: equivalence_rule(m, tree, schema) for m in generate_mutants(tree, schema)}
    if change in found:
        assert found[change] == expected
    else:
        assert expected is None


def test_kill_rate_counts_each_query_once() -> None:
    entry = made(GOLDS[0])
    once, twice = kill_rate([entry]), kill_rate([entry, entry])
    assert once == twice
    total = once.total
    assert total.rate == 1 - total.missed / (total.mutants - total.equivalent)
    assert total.rate > 0.9


def test_kill_rate_counts_a_query_once_per_schema() -> None:
    wide = made("SELECT name FROM singer WHERE id > 3")
    schema = "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT)"
    narrow = made(wide.sql, schema)
    one, other = kill_rate([wide]).total.mutants, kill_rate([narrow]).total.mutants
    assert one != other
    for entries in ([wide, narrow], [narrow, wide, narrow]):
        assert kill_rate(entries).total.mutants == one + other


def test_limit_in_a_subquery_has_usable_databases() -> None:
    # A LIMIT in a subquery picks one of several equal: databases on which it matters are not used.
    common = "SELECT country FROM singer GROUP BY country ORDER BY count(*) DESC LIMIT 1"
    gold = f"SELECT name FROM singer WHERE country = ({common})"
    assert made(gold).reference is not None
