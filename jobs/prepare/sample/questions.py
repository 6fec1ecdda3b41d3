"""The sample's questions: kinds of query, each with several phrasings.

A kind draws what it needs from a table (columns, a value that occurs, an operator) and fills both a
phrasing and the gold query from the same slots, so that the question fixes the answer: columns to
show are always named, and so is every bound.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from jobs.prepare.sample.world import Column, Database, Table

Slots = dict[str, str]
Draw = Callable[[Database, Table, random.Random], Slots | None]

_STRICT = ((">", "more than"), ("<", "less than"))
_BOUNDS = ((">=", "at least"), ("<=", "at most"))
_AGGREGATES = (
    ("AVG", "average"),
    ("MAX", "maximum"),
    ("MIN", "minimum"),
    ("SUM", "sum"),
)
#: A sum of these would mean nothing.
_NOT_SUMMED = {
    "age",
    "born",
    "distance",
    "founded",
    "launched",
    "length",
    "opened",
    "rating",
    "score",
    "size",
}
_NOT_SUMMED |= {"temperature", "year"}
_DIRECTIONS = (("DESC", "highest"), ("ASC", "lowest"))


@dataclass(frozen=True)
class Kind:
    """One kind of question. Slots in braces; `draw` returns None where the table does not allow it.

    `ordered` names the slot of the column by which the answer is ordered: it must have no ties.
    `rare` kinds come up once where others come up `_COMMON` times: they keep the test honest (a small
    model learns little of them from a few hundred rows) without making up most of it.
    """

    name: str
    phrasings: tuple[str, ...]
    query: str
    draw: Draw
    ordered: bool = False
    linked: bool = False
    rare: bool = False


def _literal(value: object) -> str:
    return (
        f"'{value}'" if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _spoken(value: object) -> str:
    return str(value) if isinstance(value, str) else _literal(value)


def _number(table: Table, rng: random.Random) -> Column | None:
    columns = [column for column in table.columns if column.is_number]
    return rng.choice(columns) if columns else None


def _category(table: Table, rng: random.Random) -> Column | None:
    columns = [column for column in table.columns if column.is_category]
    return rng.choice(columns) if columns else None


def _things(table: Table) -> Slots:
    return {
        "t": table.name,
        "things": table.plural.replace("_", " "),
        "thing": table.thing,
        "n": table.display.name,
        "name": table.display.label,
    }


def _aggregate(column: Column, rng: random.Random) -> Slots:
    allowed = _AGGREGATES[:3] if column.name in _NOT_SUMMED else _AGGREGATES
    function, said = rng.choice(allowed)
    return {"f": function, "f_said": said}


def _column(slot: str, column: Column) -> Slots:
    return {slot: column.name, f"{slot}_said": column.label}


def _compared(
    database: Database, table: Table, rng: random.Random, operators: tuple[tuple[str, str], ...] = _STRICT
) -> Slots | None:
    """A number column, an operator and a bound that occurs in the middle of the column's values."""
    column = _number(table, rng)
    if column is None:
        return None
    values = sorted(set(database.column_values(table, column)))
    middle = values[len(values) // 5 : -(len(values) // 5) or None]
    symbol, said = rng.choice(operators)
    value = rng.choice(middle)
    return {**_column("m", column), "op": symbol, "op_said": said, "v": _literal(value)}


def _equal(database: Database, table: Table, rng: random.Random) -> Slots | None:
    column = _category(table, rng)
    if column is None:
        return None
    value = rng.choice(database.column_values(table, column))
    return {**_column("c", column), "w": _literal(value), "w_said": str(value)}


def draw_plain(_database: Database, table: Table, _rng: random.Random) -> Slots | None:
    return _things(table)


def draw_two_columns(_database: Database, table: Table, rng: random.Random) -> Slots | None:
    other = rng.choice(table.columns[1:])
    return {**_things(table), **_column("b", other)}


def draw_compared(database: Database, table: Table, rng: random.Random) -> Slots | None:
    compared = _compared(database, table, rng)
    return compared and {**_things(table), **compared}


def draw_bounded(database: Database, table: Table, rng: random.Random) -> Slots | None:
    compared = _compared(database, table, rng, _BOUNDS)
    return compared and {**_things(table), **compared}


def draw_equal(database: Database, table: Table, rng: random.Random) -> Slots | None:
    equal = _equal(database, table, rng)
    return equal and {**_things(table), **equal}


def draw_both(database: Database, table: Table, rng: random.Random) -> Slots | None:
    compared, equal = _compared(database, table, rng), _equal(database, table, rng)
    return {**_things(table), **compared, **equal} if compared and equal else None


def draw_aggregate(database: Database, table: Table, rng: random.Random) -> Slots | None:
    column, equal = _number(table, rng), _equal(database, table, rng)
    if column is None or equal is None:
        return None
    return {**_things(table), **_column("m", column), **equal, **_aggregate(column, rng)}


def draw_extreme(_database: Database, table: Table, rng: random.Random) -> Slots | None:
    column = _number(table, rng)
    if column is None:
        return None
    direction, said = rng.choice(_DIRECTIONS)
    order = "descending" if direction == "DESC" else "ascending"
    return {
        **_things(table),
        **_column("m", column),
        "d": direction,
        "d_said": said,
        "order": order,
        "k": str(rng.randint(2, 5)),
    }


def draw_range(database: Database, table: Table, rng: random.Random) -> Slots | None:
    column = _number(table, rng)
    if column is None:
        return None
    values = sorted(set(database.column_values(table, column)))
    if len(values) < 6:
        return None
    low = rng.randrange(1, len(values) - 3)
    high = rng.randrange(low + 1, len(values) - 1)
    bounds = {"low": _literal(values[low]), "high": _literal(values[high])}
    return {**_things(table), **_column("m", column), **bounds}


def draw_grouped(_database: Database, table: Table, rng: random.Random) -> Slots | None:
    category, number = _category(table, rng), _number(table, rng)
    if category is None or number is None:
        return None
    return {
        **_things(table),
        **_column("c", category),
        **_column("m", number),
        **_aggregate(number, rng),
        "k": str(rng.randint(2, 8)),
    }


def draw_first_letter(database: Database, table: Table, rng: random.Random) -> Slots | None:
    value = str(rng.choice(database.column_values(table, table.display)))
    return {**_things(table), "letter": value[0]}


def draw_linked(database: Database, table: Table, rng: random.Random) -> Slots | None:
    """For a child table: its parent's words and the name of a parent row that has children."""
    if table.parent is None:
        return None
    parent = table.parent
    wanted = rng.choice(database.rows[table.name])[-1]
    names = {row[0]: row[1] for row in database.rows[parent.name]}
    return {
        **_things(table),
        "p": parent.name,
        "parents": parent.plural.replace("_", " "),
        "parent": parent.thing,
        "pn": parent.display.name,
        "parent_name": parent.display.label,
        "key": parent.key,
        "v": _literal(names[wanted]),
        "v_said": str(names[wanted]),
    }


_JOIN = "FROM {t} JOIN {p} ON {t}.{key} = {p}.id"

KINDS = (
    Kind(
        "count",
        (
            "How many {things} are there?",
            "Count all {things}.",
        ),
        "SELECT COUNT(*) FROM {t}",
        draw_plain,
    ),
    Kind(
        "columns",
        (
            "List the {name} and {b_said} of all {things}.",
            "Show the {name} and {b_said} of each {thing}.",
        ),
        "SELECT {n}, {b} FROM {t}",
        draw_two_columns,
    ),
    Kind(
        "compare",
        (
            "List the {name} of {things} with {m_said} {op_said} {v}.",
            "Show the {name} of {things} whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} {op} {v}",
        draw_compared,
    ),
    Kind(
        "bound",
        (
            "List the {name} of {things} with {m_said} {op_said} {v}.",
            "Show the {name} of {things} whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} {op} {v}",
        draw_bounded,
        rare=True,
    ),
    Kind(
        "equal",
        (
            "List the {name} of {things} with {c_said} {w_said}.",
            "Show the {name} of {things} whose {c_said} is {w_said}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} = {w}",
        draw_equal,
    ),
    Kind(
        "not equal",
        (
            "List the {name} of {things} whose {c_said} is not {w_said}.",
            "Show the {name} of all {things} with {c_said} other than {w_said}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} != {w}",
        draw_equal,
        rare=True,
    ),
    Kind(
        "both",
        (
            "List the {name} of {things} with {c_said} {w_said} and {m_said} {op_said} {v}.",
            "Show the {name} of all {things} whose {c_said} is {w_said} and whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} = {w} AND {m} {op} {v}",
        draw_both,
        rare=True,
    ),
    Kind(
        "either",
        (
            "List the {name} of {things} with {c_said} {w_said} or {m_said} {op_said} {v}.",
            "Show the {name} of all {things} whose {c_said} is {w_said} or whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} = {w} OR {m} {op} {v}",
        draw_both,
        rare=True,
    ),
    Kind(
        "count compare",
        (
            "How many {things} have {m_said} {op_said} {v}?",
            "Count the {things} whose {m_said} is {op_said} {v}.",
        ),
        "SELECT COUNT(*) FROM {t} WHERE {m} {op} {v}",
        draw_compared,
        rare=True,
    ),
    Kind(
        "count equal",
        (
            "How many {things} have {c_said} {w_said}?",
            "Count the {things} whose {c_said} is {w_said}.",
        ),
        "SELECT COUNT(*) FROM {t} WHERE {c} = {w}",
        draw_equal,
    ),
    Kind(
        "aggregate",
        (
            "What is the {f_said} of {m_said} over all {things}?",
            "Find the {f_said} of {m_said} for the {things}.",
        ),
        "SELECT {f}({m}) FROM {t}",
        draw_aggregate,
    ),
    Kind(
        "aggregate equal",
        (
            "What is the {f_said} of {m_said} over the {things} whose {c_said} is {w_said}?",
            "Find the {f_said} of {m_said} for the {things} with {c_said} {w_said}.",
        ),
        "SELECT {f}({m}) FROM {t} WHERE {c} = {w}",
        draw_aggregate,
        rare=True,
    ),
    Kind(
        "extreme",
        (
            "What is the {name} of the {thing} with the {d_said} {m_said}?",
            "Show the {name} of the {thing} that has the {d_said} {m_said}.",
        ),
        "SELECT {n} FROM {t} ORDER BY {m} {d} LIMIT 1",
        draw_extreme,
        ordered=True,
    ),
    Kind(
        "top",
        (
            "List the {name} of the {k} {things} with the {d_said} {m_said}.",
            "Show the {name} of the {k} {things} that have the {d_said} {m_said}.",
        ),
        "SELECT {n} FROM {t} ORDER BY {m} {d} LIMIT {k}",
        draw_extreme,
        ordered=True,
        rare=True,
    ),
    Kind(
        "sort",
        (
            "List the {name} of all {things} in {order} order of {m_said}.",
            "Show the {name} of every {thing}, sorted by {m_said} in {order} order.",
        ),
        "SELECT {n} FROM {t} ORDER BY {m} {d}",
        draw_extreme,
        ordered=True,
    ),
    Kind(
        "between",
        (
            "List the {name} of {things} with {m_said} between {low} and {high}.",
            "Show the {name} of all {things} whose {m_said} is between {low} and {high}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} BETWEEN {low} AND {high}",
        draw_range,
    ),
    Kind(
        "like",
        (
            "List the {name} of {things} whose {name} starts with {letter}.",
            "Show every {name} of the {things} that begins with the letter {letter}.",
        ),
        "SELECT {n} FROM {t} WHERE {n} LIKE '{letter}%'",
        draw_first_letter,
        rare=True,
    ),
    Kind(
        "distinct",
        (
            "List the different {c_said} values of the {things}.",
            "Show the distinct {c_said} values of the {things}.",
        ),
        "SELECT DISTINCT {c} FROM {t}",
        draw_equal,
    ),
    Kind(
        "count distinct",
        (
            "How many different {c_said} values do the {things} have?",
            "Count the distinct {c_said} values of the {things}.",
        ),
        "SELECT COUNT(DISTINCT {c}) FROM {t}",
        draw_equal,
        rare=True,
    ),
    Kind(
        "group count",
        (
            "Show each {c_said} and its number of {things}.",
            "List each {c_said} and count its {things}.",
        ),
        "SELECT {c}, COUNT(*) FROM {t} GROUP BY {c}",
        draw_grouped,
    ),
    Kind(
        "group aggregate",
        (
            "List each {c_said} and the {f_said} of {m_said} of its {things}.",
            "Show each {c_said} with the {f_said} of {m_said} over its {things}.",
        ),
        "SELECT {c}, {f}({m}) FROM {t} GROUP BY {c}",
        draw_grouped,
        rare=True,
    ),
    Kind(
        "having",
        (
            "Which {c_said} values have more than {k} {things}?",
            "List each {c_said} that has more than {k} {things}.",
        ),
        "SELECT {c} FROM {t} GROUP BY {c} HAVING COUNT(*) > {k}",
        draw_grouped,
        rare=True,
    ),
    Kind(
        "above average",
        (
            "List the {name} of {things} with {m_said} above the average.",
            "Show the {name} of all {things} whose {m_said} is higher than the average {m_said}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} > (SELECT AVG({m}) FROM {t})",
        draw_grouped,
        rare=True,
    ),
    Kind(
        "join pairs",
        (
            "Show the {name} of each {thing} with the {parent_name} of its {parent}.",
            "List every {thing}'s {name} and the {parent_name} of its {parent}.",
        ),
        "SELECT {t}.{n}, {p}.{pn} " + _JOIN,
        draw_linked,
        linked=True,
        rare=True,
    ),
    Kind(
        "join where",
        (
            "List the {name} of the {things} of the {parent} {v_said}.",
            "Show the {name} of all {things} that belong to the {parent} {v_said}.",
        ),
        "SELECT {t}.{n} " + _JOIN + " WHERE {p}.{pn} = {v}",
        draw_linked,
        linked=True,
        rare=True,
    ),
    Kind(
        "join count",
        (
            "How many {things} belong to the {parent} {v_said}?",
            "Count the {things} of the {parent} {v_said}.",
        ),
        "SELECT COUNT(*) " + _JOIN + " WHERE {p}.{pn} = {v}",
        draw_linked,
        linked=True,
        rare=True,
    ),
    Kind(
        "without",
        (
            "List the {parent_name} of the {parents} that have no {things}.",
            "Show the {parent_name} of all {parents} without any {things}.",
        ),
        "SELECT {pn} FROM {p} WHERE id NOT IN (SELECT {key} FROM {t})",
        draw_linked,
        linked=True,
        rare=True,
    ),
)

_COMMON = 8


def turns() -> tuple[Kind, ...]:
    """The kinds in the order in which they take turns, mixed the same way always."""
    mixed = [kind for kind in KINDS for _ in range(1 if kind.rare else _COMMON)]
    random.Random("tuneyard sample turns").shuffle(mixed)
    return tuple(mixed)
