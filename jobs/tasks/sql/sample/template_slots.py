"""Slots of the sample's templates: columns, operators and values drawn from a table.

Each `draw_…` returns the slots of one question, or None if the table has no suitable column.
"""

from __future__ import annotations

import random

from jobs.tasks.sql.sample.databases import Column, Database, Table

#: Slot name -> text.
Slots = dict[str, str]

_STRICT = ((">", "more than"), ("<", "less than"))
_BOUNDS = ((">=", "at least"), ("<=", "at most"))
_AGGREGATES = (
    ("AVG", "average"),
    ("MAX", "maximum"),
    ("MIN", "minimum"),
    ("SUM", "sum"),
)
#: Columns whose sum has no meaning.
_NOT_SUMMED = {
    *("age", "born", "distance", "founded", "launched", "length"),
    *("opened", "rating", "score", "size", "temperature", "year"),
}
_DIRECTIONS = (("DESC", "highest"), ("ASC", "lowest"))


def _literal(value: object) -> str:
    """A value as an SQL literal; the sample's texts have no quotes."""
    if isinstance(value, str):
        return f"'{value}'"
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    """A number column, an operator and a bound: one of the middle three fifths of the column's values."""
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
    """For a child table: its parent's names, and the display value of a parent row that has children."""
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
