"""Extraction of the query from an answer: fences, labels, prose, semicolons."""

import time

import pytest

from jobs.tasks.sql.execution.extract import extract_sql

QUERY = "SELECT name FROM singer WHERE country = 'a;b'"


@pytest.mark.parametrize(
    "answer",
    [
        QUERY,
        f"  {QUERY} ;\n",
        f"{QUERY};",
        f"{QUERY}; This lists the singers.",
        f"{QUERY}; DROP TABLE singer",
        f"```sql\n{QUERY}\n```",
        f"```\n{QUERY};\n```\nThis lists the singers.",
        f"```SQL\n{QUERY}",
        f"Here is it:\n```sql\n{QUERY}\n```\nor\n```sql\nSELECT 2\n```",
        f"To install:\n```bash\npip install x\n```\n```sql\n{QUERY}\n```",
        f"SQL: {QUERY}",
        f"Answer: {QUERY}",
        f"The SQL query is: {QUERY}",
        f"Sure! The following does it.\n\n{QUERY}",
        f"I would use {QUERY}",
        f"{QUERY}\n\nThis query lists the singers.",
    ],
)
def test_query_is_extracted(answer: str) -> None:
    assert extract_sql(answer) == QUERY


@pytest.mark.parametrize(
    "answer",
    [
        "SELECT a\n\nFROM t\n\nWHERE b = 1",
        "WITH x AS (SELECT 1)\n\nSELECT * FROM x",
        "(SELECT 1)",
        "-- the oldest\nSELECT 1",
        "SELECT 'it''s; fine' -- done; really\nFROM t",
        'SELECT "a;b", `c;d`, [e;f] /* ; */ FROM t',
        "DROP TABLE singer",
        "nothing of the kind",
        "",
    ],
)
def test_text_without_wrapper_is_unchanged(answer: str) -> None:
    assert extract_sql(answer) == answer


@pytest.mark.parametrize("unit", ["[", "'", '"', "/*", "```", "\n\n", "(", "select ", "; ", "`", "--"])
def test_extraction_takes_linear_time(unit: str) -> None:
    started = time.process_time()
    extract_sql(unit * 100_000)
    assert time.process_time() - started < 2
