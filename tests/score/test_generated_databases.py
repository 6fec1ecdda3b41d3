"""Generated databases without a real one: they catch mistakes that are no mutants of the gold."""

from dataclasses import replace

import pytest
from small_sql_data import SqlData

from jobs.tasks.sql.execution.connections import open_image
from jobs.tasks.sql.execution.database_generator import SHAPES, generate_database
from jobs.tasks.sql.execution.database_selection import MIN_KEPT
from jobs.tasks.sql.execution.query_constraints import QueryConstraints
from jobs.tasks.sql.execution.query_runner import QueryLimits, run_query
from jobs.tasks.sql.execution.schema import Schema, from_text
from jobs.tasks.sql.judging import SqlScores, score

SCHEMA = from_text(
    "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INTEGER);"
    "CREATE TABLE concert (cid INTEGER PRIMARY KEY, singer_id INTEGER REFERENCES singer(id), name TEXT);"
    "CREATE TABLE award (name TEXT, year INTEGER);"
)
MANY_TABLES = from_text(
    "".join(f"CREATE TABLE t{n} (id INTEGER PRIMARY KEY, name TEXT, size INTEGER);" for n in range(26))
)
#: (gold, wrong answer)
ANOTHER_TABLE = [
    ("SELECT name FROM singer", "SELECT name FROM singer WHERE id NOT IN (SELECT singer_id FROM concert)"),
    ("SELECT name FROM singer", "SELECT name FROM singer UNION ALL SELECT year FROM concert"),
    ("SELECT count(*) FROM singer WHERE age > 20",
     "SELECT count(*) FROM singer a LEFT JOIN concert b ON a.id = singer_id WHERE age > 20"),
    ("SELECT name FROM singer ORDER BY age DESC LIMIT 1",
     "SELECT name FROM singer WHERE id NOT IN (SELECT singer_id FROM concert) ORDER BY age DESC LIMIT 1"),
]  # fmt: skip
NULLS_TIES_SPELLINGS = [
    ("SELECT country FROM singer GROUP BY country ORDER BY count(*) DESC LIMIT 1",
     "SELECT country FROM singer GROUP BY country ORDER BY sum(age) DESC LIMIT 1"),
    ("SELECT country FROM singer GROUP BY country HAVING count(*) > 2",
     "SELECT country FROM singer GROUP BY country HAVING count(age) > 2"),
    ("SELECT name FROM singer WHERE age > 20", "SELECT name FROM singer WHERE age > 20 AND name IS NOT NULL"),
    ("SELECT name FROM singer WHERE age > 20", "SELECT name FROM singer WHERE age > 20 AND country IS NOT NULL"),
    ("SELECT name FROM singer WHERE country = 'France'", "SELECT name FROM singer WHERE country LIKE 'France'"),
    ("SELECT avg(age) FROM singer", "SELECT avg(age) FROM singer WHERE weight IS NOT NULL"),
    ("SELECT count(*) FROM singer", "SELECT count(*) FROM singer WHERE age >= 0"),
]  # fmt: skip


def scored(sql_data: SqlData, cases: list[tuple[str, str]]) -> SqlScores:
    """Scores of answers to rows with a schema and no database."""
    (row, *_) = sql_data.rows
    fields = {name: value for name, value in row.fields.items() if name != "database"}
    rows = [
        replace(
            row,
            id=str(number),
            fields=fields,
            messages=(*row.messages[:-1], {"role": "assistant", "content": gold}),
        )
        for number, (gold, _) in enumerate(cases)
    ]
    return score(rows, [answer for _, answer in cases], sql_data.directory, workers=1)


@pytest.mark.parametrize("cases", [ANOTHER_TABLE, NULLS_TIES_SPELLINGS], ids=["another table", "content"])
def test_generated_databases_catch_mistakes_that_are_no_mutants(
    sql_data: SqlData, cases: list[tuple[str, str]]
) -> None:
    found = scored(sql_data, [*cases, *((gold, gold) for gold, _ in cases)])
    assert all(row.valid_gold for row in found.rows)
    accepted = [row.answer for row in found.rows[: len(cases)] if row.scores["strict"]]
    assert accepted == []
    assert all(row.scores["strict"] for row in found.rows[len(cases) :])


def test_min_kept_holds_only_without_a_real_database(sql_data: SqlData) -> None:
    gold = "SELECT name FROM singer WHERE age > 20"
    (entry,) = scored(sql_data, [(gold, gold)]).golds
    assert entry.reference is not None
    assert len(entry.reference.images) >= MIN_KEPT >= 4
    (beside,) = score(sql_data.rows[:1], ["SELECT 1"], sql_data.directory, workers=1).golds
    assert beside.reference is not None
    assert beside.reference.real
    assert len(beside.reference.images) < MIN_KEPT


def rows_of(image: bytes, table: str) -> list[tuple[object, ...]]:
    return list(run_query(open_image(image), f"SELECT * FROM {table}", QueryLimits()).rows)


def images(schema: Schema, used: str, *, fill_all: bool) -> list[bytes]:
    return [
        generate_database(schema, frozenset({used}), QueryConstraints(), 0, variant, fill_all=fill_all)
        for variant in range(len(SHAPES))
    ]


def test_fill_all_gives_unread_tables_rows_that_join() -> None:
    filled = images(SCHEMA, "singer", fill_all=True)
    assert sum(bool(rows_of(image, "award")) for image in filled) >= len(SHAPES) - 2
    met = missed = 0
    for image in filled:
        singers = {row[0] for row in rows_of(image, "singer")}
        referred = {row[1] for row in rows_of(image, "concert")} - {None}
        assert referred <= singers
        met += bool(referred)
        missed += bool(singers - referred)
    assert min(met, missed) >= len(SHAPES) - 2


def test_fill_all_does_not_change_the_golds_tables() -> None:
    for filled, bare in zip(
        images(SCHEMA, "singer", fill_all=True), images(SCHEMA, "singer", fill_all=False), strict=True
    ):
        assert rows_of(filled, "singer") == rows_of(bare, "singer")
        assert rows_of(bare, "concert") == rows_of(bare, "award") == []


def test_fill_all_adds_no_page() -> None:
    for filled, bare in zip(
        images(MANY_TABLES, "t7", fill_all=True), images(MANY_TABLES, "t7", fill_all=False), strict=True
    ):
        assert len(filled) == len(bare)


def test_empty_answer_to_a_nondeterministic_gold_is_wrong(
    sql_data: SqlData,
) -> None:
    gold = "SELECT id FROM singer GROUP BY country HAVING count(*) > 2"
    right = [gold, gold.replace("SELECT id", "SELECT min(id)"), gold.replace("SELECT id", "SELECT max(id)")]
    wrong = ["SELECT id FROM singer WHERE 0", gold.replace("> 2", "> 4"), gold.replace("country", "age")]
    found = scored(sql_data, [(gold, answer) for answer in [*right, *wrong]])
    assert [row.scores["strict"] for row in found.rows] == [True] * len(right) + [False] * len(wrong)
    assert not found.rows[0].flags["both_empty"]
