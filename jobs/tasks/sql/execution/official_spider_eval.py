"""The official Spider evaluation (test-suite-sql-eval's execution match), from the description of its behaviour.

It reproduces published numbers, errors included; the strict comparison is separate. Its rules:

- DISTINCT is removed from gold and answer before they run;
- `> =`, `< =` and `! =` are closed up, `YEAR(CURDATE())` is 2020;
- row order matters if the gold's text contains "order by" anywhere, a subquery included; rows with equal keys
  must come in the same order too;
- two results without rows are equal, whatever their columns;
- values are compared by Python's `==`: 1 equals 1.0, 0.1 + 0.2 does not equal 0.3, '1' does not equal 1;
- but each row's values are first sorted by their text, which may put 1 and 1.0 in different places;
- a word `value` in the answer is 1;
- bytes that are not UTF-8 are dropped;
- columns may come in any order, a different one on each database.

Not reproduced: statements that write or reach outside the database are refused and count as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import apsw

from jobs.tasks.sql.execution.compare import Table, assignable, in_order, unordered

_TOKEN = re.compile(
    r"""'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)"""
    r"""|[A-Za-z_][A-Za-z0-9_]*""",
    re.DOTALL,
)
_THIS_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)


def databases(given: Sequence[tuple[str, apsw.Connection]]) -> Sequence[tuple[str, apsw.Connection]]:
    """The databases that the official verdict uses: only the real one if there is one."""
    return given[:1] if given and given[0][0] == "real" else given


def rewritten(sql: str) -> str:
    """The text that the evaluation runs instead of `sql`."""
    for split, whole in (("> =", ">="), ("< =", "<="), ("! =", "!=")):
        sql = sql.replace(split, whole)
    sql = _TOKEN.sub(lambda match: "" if match[0].lower() == "distinct" else match[0], sql)
    return _THIS_YEAR.sub("2020", sql)


def rewritten_answer(sql: str) -> str:
    """As `rewritten`, for the answer: ` value ` also becomes ` 1 `."""
    return rewritten(sql.replace(" value ", " 1 "))


def order_matters(gold: str) -> bool:
    """Whether the gold query asks for an order, as the published comparison decides it."""
    return "order by" in gold.lower()


def equal(gold: Table, answer: Table, ordered: bool) -> bool:
    """The official verdict on one database's two results."""
    if not gold.rows and not answer.rows:
        return True
    if len(gold.rows) != len(answer.rows) or gold.width != answer.width:
        return False
    expected = in_order(gold) if ordered else unordered(gold)
    return assignable([(expected, answer)]) and _rows_agree_by_text(gold, answer, ordered)


def _rows_agree_by_text(gold: Table, answer: Table, ordered: bool) -> bool:
    """The evaluation's quick rejection, which is wrong for equal numbers of two types: it sorts values as texts."""
    if not any(isinstance(value, float) for table in (gold, answer) for row in table.rows for value in row):
        return True
    first, second = (
        [tuple(sorted(row, key=lambda value: str(value) + str(type(value)))) for row in table.rows]
        for table in (gold, answer)
    )
    return first == second if ordered else set(first) == set(second)
