"""The execution comparison that published Spider numbers use, bug for bug, from the description of its behaviour.

Kept apart from the strict comparison on purpose: it answers "what would the paper say", not "is
it right". Its rules, each of which the strict comparison breaks for a reason:

- DISTINCT is removed from gold and answer before they run;
- `> =`, `< =` and `! =` are closed up, `YEAR(CURDATE())` is 2020;
- row order matters where the gold's text contains "order by" anywhere, a subquery included, and
  then exactly: rows with equal keys have no freedom;
- two results without rows are equal, whatever their columns;
- values are equal as Python has it: 1 and 1.0 are, 0.1 + 0.2 and 0.3 are not, '1' and 1 are not;
- but first each row's values are sorted by their text, and 1 and 1.0 may end in different places;
- a word `value` in the answer is 1;
- text that is not UTF-8 loses the bytes that are wrong;
- columns may stand in any order, in each database another.

One thing is not reproduced: statements that write or reach outside are refused and count as wrong.
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
    """The databases of the official verdict: the real one alone where there is one, as for published numbers."""
    return given[:1] if given and given[0][0] == "real" else given


def rewritten(sql: str) -> str:
    """The text that is run instead of `sql`."""
    for split, whole in (("> =", ">="), ("< =", "<="), ("! =", "!=")):
        sql = sql.replace(split, whole)
    sql = _TOKEN.sub(lambda match: "" if match[0].lower() == "distinct" else match[0], sql)
    return _THIS_YEAR.sub("2020", sql)


def rewritten_answer(sql: str) -> str:
    """As `rewritten`, for the answer, in which a word `value` between spaces is 1 besides."""
    return rewritten(sql.replace(" value ", " 1 "))


def order_matters(gold: str) -> bool:
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
    """The official quick rejection, for what it gets wrong: equal numbers of two types, sorted as texts."""
    if not any(isinstance(value, float) for table in (gold, answer) for row in table.rows for value in row):
        return True
    first, second = (
        [tuple(sorted(row, key=lambda value: str(value) + str(type(value)))) for row in table.rows]
        for table in (gold, answer)
    )
    return first == second if ordered else set(first) == set(second)
