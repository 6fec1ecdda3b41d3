"""Kinds of questions of the sample: templates of question and gold query, filled from the same slots.

The question determines the answer: it names all output columns and all bounds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from jobs.tasks.sql.sample.databases import Database, Table
from jobs.tasks.sql.sample.template_slots import (
    Slots,
    draw_aggregate,
    draw_both,
    draw_bounded,
    draw_compared,
    draw_equal,
    draw_extreme,
    draw_first_letter,
    draw_grouped,
    draw_linked,
    draw_plain,
    draw_range,
    draw_two_columns,
)

Draw = Callable[[Database, Table, random.Random], Slots | None]


@dataclass(frozen=True)
class QuestionKind:
    """One kind of question. Slots are in braces; `draw` returns None if the table does not allow the kind.

    `ordered`: the answer is sorted by slot `m`, whose column must have no ties. `linked`: needs a table with a
    parent. `rare` kinds are _COMMON_WEIGHT times less frequent: a small model learns little of them from a few
    hundred rows.
    """

    name: str
    phrasings: tuple[str, ...]
    query: str
    draw: Draw
    ordered: bool = False
    linked: bool = False
    rare: bool = False


_JOIN = "FROM {t} JOIN {p} ON {t}.{key} = {p}.id"

KINDS = (
    QuestionKind(
        "count",
        (
            "How many {things} are there?",
            "Count all {things}.",
        ),
        "SELECT COUNT(*) FROM {t}",
        draw_plain,
    ),
    QuestionKind(
        "columns",
        (
            "List the {name} and {b_said} of all {things}.",
            "Show the {name} and {b_said} of the {things}.",
        ),
        "SELECT {n}, {b} FROM {t}",
        draw_two_columns,
    ),
    QuestionKind(
        "compare",
        (
            "List the {name} of {things} with {m_said} {op_said} {v}.",
            "Show the {name} of {things} whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} {op} {v}",
        draw_compared,
    ),
    QuestionKind(
        "bound",
        (
            "List the {name} of {things} with {m_said} {op_said} {v}.",
            "Show the {name} of {things} whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} {op} {v}",
        draw_bounded,
        rare=True,
    ),
    QuestionKind(
        "equal",
        (
            "List the {name} of {things} with {c_said} {w_said}.",
            "Show the {name} of {things} whose {c_said} is {w_said}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} = {w}",
        draw_equal,
    ),
    QuestionKind(
        "not equal",
        (
            "List the {name} of {things} whose {c_said} is not {w_said}.",
            "Show the {name} of all {things} with {c_said} other than {w_said}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} != {w}",
        draw_equal,
        rare=True,
    ),
    QuestionKind(
        "both",
        (
            "List the {name} of {things} with {c_said} {w_said} and {m_said} {op_said} {v}.",
            "Show the {name} of all {things} whose {c_said} is {w_said} and whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} = {w} AND {m} {op} {v}",
        draw_both,
        rare=True,
    ),
    QuestionKind(
        "either",
        (
            "List the {name} of {things} with {c_said} {w_said} or {m_said} {op_said} {v}.",
            "Show the {name} of all {things} whose {c_said} is {w_said} or whose {m_said} is {op_said} {v}.",
        ),
        "SELECT {n} FROM {t} WHERE {c} = {w} OR {m} {op} {v}",
        draw_both,
        rare=True,
    ),
    QuestionKind(
        "count compare",
        (
            "How many {things} have {m_said} {op_said} {v}?",
            "Count the {things} whose {m_said} is {op_said} {v}.",
        ),
        "SELECT COUNT(*) FROM {t} WHERE {m} {op} {v}",
        draw_compared,
        rare=True,
    ),
    QuestionKind(
        "count equal",
        (
            "How many {things} have {c_said} {w_said}?",
            "Count the {things} whose {c_said} is {w_said}.",
        ),
        "SELECT COUNT(*) FROM {t} WHERE {c} = {w}",
        draw_equal,
    ),
    QuestionKind(
        "aggregate",
        (
            "What is the {f_said} of {m_said} over all {things}?",
            "Find the {f_said} of {m_said} for the {things}.",
        ),
        "SELECT {f}({m}) FROM {t}",
        draw_aggregate,
    ),
    QuestionKind(
        "aggregate equal",
        (
            "What is the {f_said} of {m_said} over the {things} whose {c_said} is {w_said}?",
            "Find the {f_said} of {m_said} for the {things} with {c_said} {w_said}.",
        ),
        "SELECT {f}({m}) FROM {t} WHERE {c} = {w}",
        draw_aggregate,
        rare=True,
    ),
    QuestionKind(
        "extreme",
        (
            "What is the {name} of the {thing} with the {d_said} {m_said}?",
            "Show the {name} of the {thing} that has the {d_said} {m_said}.",
        ),
        "SELECT {n} FROM {t} ORDER BY {m} {d} LIMIT 1",
        draw_extreme,
        ordered=True,
    ),
    QuestionKind(
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
    QuestionKind(
        "sort",
        (
            "List the {name} of all {things} in {order} order of {m_said}.",
            "Show the {name} of every {thing}, sorted by {m_said} in {order} order.",
        ),
        "SELECT {n} FROM {t} ORDER BY {m} {d}",
        draw_extreme,
        ordered=True,
    ),
    QuestionKind(
        "between",
        (
            "List the {name} of {things} with {m_said} between {low} and {high}.",
            "Show the {name} of all {things} whose {m_said} is between {low} and {high}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} BETWEEN {low} AND {high}",
        draw_range,
    ),
    QuestionKind(
        "like",
        (
            "List the {name} of {things} whose {name} starts with {letter}.",
            "Show every {name} of the {things} that begins with the letter {letter}.",
        ),
        "SELECT {n} FROM {t} WHERE {n} LIKE '{letter}%'",
        draw_first_letter,
        rare=True,
    ),
    QuestionKind(
        "distinct",
        (
            "List the different {c_said} values of the {things}.",
            "Show the distinct {c_said} values of the {things}.",
        ),
        "SELECT DISTINCT {c} FROM {t}",
        draw_equal,
    ),
    QuestionKind(
        "count distinct",
        (
            "How many different {c_said} values do the {things} have?",
            "Count the distinct {c_said} values of the {things}.",
        ),
        "SELECT COUNT(DISTINCT {c}) FROM {t}",
        draw_equal,
        rare=True,
    ),
    QuestionKind(
        "group count",
        (
            "Show each {c_said} and its number of {things}.",
            "List each {c_said} and count its {things}.",
        ),
        "SELECT {c}, COUNT(*) FROM {t} GROUP BY {c}",
        draw_grouped,
    ),
    QuestionKind(
        "group aggregate",
        (
            "List each {c_said} and the {f_said} of {m_said} of its {things}.",
            "Show each {c_said} with the {f_said} of {m_said} over its {things}.",
        ),
        "SELECT {c}, {f}({m}) FROM {t} GROUP BY {c}",
        draw_grouped,
        rare=True,
    ),
    QuestionKind(
        "having",
        (
            "Which {c_said} values have more than {k} {things}?",
            "List each {c_said} that has more than {k} {things}.",
        ),
        "SELECT {c} FROM {t} GROUP BY {c} HAVING COUNT(*) > {k}",
        draw_grouped,
        rare=True,
    ),
    QuestionKind(
        "above average",
        (
            "List the {name} of {things} with {m_said} above the average.",
            "Show the {name} of all {things} whose {m_said} is higher than the average {m_said}.",
        ),
        "SELECT {n} FROM {t} WHERE {m} > (SELECT AVG({m}) FROM {t})",
        draw_grouped,
        rare=True,
    ),
    QuestionKind(
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
    QuestionKind(
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
    QuestionKind(
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
    QuestionKind(
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

#: How many times more frequent common kinds are than rare ones.
_COMMON_WEIGHT = 10


def kind_schedule() -> tuple[QuestionKind, ...]:
    """The kinds in a fixed, shuffled order; rows cycle through it."""
    mixed = [kind for kind in KINDS for _ in range(1 if kind.rare else _COMMON_WEIGHT)]
    random.Random("tuneyard sample turns").shuffle(mixed)
    return tuple(mixed)
