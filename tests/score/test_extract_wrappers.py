"""Extraction round trip: a query in any wrapper that models use is extracted unchanged."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.tasks.sql.execution import extract
from jobs.tasks.sql.execution.extract import extract_sql

QUERIES = (
    "SELECT name FROM singer",
    "SELECT name,\n\n       age\n\nFROM singer\n\nWHERE country = 'a;b'",
    "WITH a AS (\n  SELECT id\n\n  FROM t\n),\n\nb AS (\n  SELECT id FROM u\n)\n\nSELECT id FROM a JOIN b USING (id)",
    "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 9)\n\nSELECT x FROM n",
    "SELECT a FROM t JOIN u ON\n\nt.id = u.id",
    "SELECT a FROM t WHERE x IN (\n\nSELECT\n\nx FROM u\n\n)\n\nORDER BY\n\na DESC",
    'SELECT `first name`, "last;name" FROM [t u] -- the; names\n\nWHERE a > 1 /* ; */',
    "-- who: everybody\nSELECT name FROM singer",
    "(SELECT a FROM t) UNION SELECT 'it''s.' FROM u",
    "SELECT x FROM t WHERE y = 5.\nUNION\nSELECT z FROM u -- all of them.",
)
INFO = st.one_of(
    st.sampled_from(["", "sql", "SQL", "sqlite3", "mysql", "postgresql", "PL/SQL", "c++", "{.sql}", " sql ", "text"]),
    st.from_regex(r"[a-z]{1,8}[0-9]?", fullmatch=True).filter(
        lambda word: not extract._STARTS_LIKE_SQL.match(word)
    ),
)  # fmt: skip
BEFORE = st.sampled_from(
    [
        "",
        "Sure!\n\n",
        "SQL:\n",
        "**Answer:** ",
        "The SQL query is: ",
        "With this query we get the names:\n\n",
        "With the schema above:\n",
        "Select the names from the table:\n\n",
        "Select the singers' names.\n\n",
        "Analyze the question: we need names.\n\n",
        "To select these, one can do this with a join.\nThe query:\n\n",
    ]
)
AFTER = st.sampled_from(
    [
        "",
        ";",
        "\n\nThis lists the singers.",
        "; This lists the singers.",
        "\n\n**Explanation:** it's all.",
        "\n\n### Explanation\n\nIt's all.",
        "\n\n1. It lists them.",
        "\n\nÇa suffit.",
        "\n### Question: and then?",
    ]
)
query = st.sampled_from(QUERIES)


@given(query, BEFORE, AFTER)
def test_query_between_prose(query: str, before: str, after: str) -> None:
    if "/* ; */" in query or query.endswith("them."):
        after = after if after.startswith("\n\n") else ""  # a comment has no end on its line
    if query.startswith("--") and before:
        query = QUERIES[0]  # a comment behind prose is prose
    assert extract_sql(before + query + after) == query


@given(query, BEFORE, INFO, AFTER, st.sampled_from(["```", "````", "\n~~~"]))
def test_fence_with_any_info_string(query: str, before: str, info: str, after: str, fence: str) -> None:
    assert extract_sql(f"{before}{fence}{info}\n{query}\n{fence}{after}") == query


@given(query, INFO)
def test_unclosed_fence(query: str, info: str) -> None:
    assert extract_sql(f"```{info}\n{query}") == query


@given(query, st.sampled_from(["", "\n", "\n\nThis lists the singers.", "\nOr:\n```sql\nSELECT 2\n```"]))
def test_fence_opened_by_the_prompt(query: str, after: str) -> None:
    assert extract_sql(f"{query}\n```{after}") == query
    if not query.endswith("them."):  # a semicolon in a comment is none
        assert extract_sql(f"{query};\n```{after}") == query


@given(query.filter(lambda sql: "--" not in sql), st.sampled_from(["", "sql", "SQL ", "mysql ", " "]))
def test_fence_on_one_line(query: str, info: str) -> None:
    flat = re.sub(r"\s+", " ", query)
    assert extract_sql(f"```{info} {flat}```") == flat


@pytest.mark.parametrize(
    "sql", ["SELECT name FROM t", "SELECT `name` FROM `t`", "WITH a AS (SELECT 1) SELECT * FROM a"]
)
@pytest.mark.parametrize("wrapper", ["`{}`", "**SQL:** `{}`", "Use `{}` to get the `name`.", "`{};`"])
def test_inline_code(sql: str, wrapper: str) -> None:
    assert extract_sql(wrapper.format(sql)) == sql


@pytest.mark.parametrize(
    ("answer", "sql"),
    [
        ("Select the names: SELECT name FROM t", "SELECT name FROM t"),
        ("I would use WITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
        ("Select the names:\n```\nSELECT name FROM t", "SELECT name FROM t"),
        ("SELECT name FROM t\n\n```\nAnn\nBob\n```", "SELECT name FROM t"),
        ("```\nAnn\n```\nSELECT name FROM t", "SELECT name FROM t"),
        ("```SELECT\n name FROM t\n```", "SELECT\n name FROM t"),
        ("```sql\n-- one\nSELECT 1\n```\n```sql\nSELECT 2\n```", "-- one\nSELECT 1"),
    ],
)
def test_query_among_prose(answer: str, sql: str) -> None:
    assert extract_sql(answer) == sql


@pytest.mark.parametrize(
    "answer",
    [
        "WITH x SELECT name FROM t",
        "WITH x AS\nSELECT name FROM t",
        "SELECT FROM\nSELECT name FROM t",
        "SELECT name, -- note: this\nage FROM t UNION\nSELECT a, b FROM u",
        "SELECT 'a: b.'\nUNION\nSELECT 'c'",
    ],
)
def test_wrong_query_is_not_repaired(answer: str) -> None:
    assert extract_sql(answer) == answer


@pytest.mark.parametrize(
    "unit",
    ["`", "```", "```\n", "~~~\n", "(", ")", "\n\n", "\n\na", " ", "select ", "select: ", "a select: ", "with ",
     "with x(", "\nwith x as ", "\nwith [", '\nwith "', "\nwith/*", "--\n", "/*", "'", "```a ", "```sql\n```",
     "Select x:\n", "Select x.\n", "`select ", "x:", ". ", "!"],
)  # fmt: skip
def test_extraction_is_linear_for_repeated_units(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    extract_sql(text)
    extract_sql(f"{text}select x")
    extract_sql(f"a select: {text}")
    assert time.process_time() - started < 20  # a square of the length would take minutes


@pytest.mark.parametrize("unit", ["`", "```", "(", "\n\n"])
def test_megabyte_is_extracted_in_seconds(unit: str) -> None:
    started = time.process_time()
    extract_sql(unit * (1_000_000 // len(unit)))
    assert time.process_time() - started < 20
