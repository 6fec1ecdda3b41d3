"""Mutants of a query: wrong queries that differ by one small change, of the kinds that models make.

They measure databases: a database that kills no mutant of a kind cannot detect mistakes of that kind.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from sqlglot import exp

from jobs.tasks.sql.execution.mutation_operators import OPERATORS
from jobs.tasks.sql.execution.schema import Schema
from jobs.tasks.sql.execution.syntax import DIALECT, unwrapped

MUTANT_KINDS: tuple[str, ...] = tuple(OPERATORS)
#: Of one query; a query with many columns would have hundreds of one kind.
MAX_PER_KIND = 6


@dataclass(frozen=True)
class Mutant:
    """A changed query; `change` describes the change."""

    kind: str
    change: str
    sql: str


def generate_mutants(tree: exp.Expression, schema: Schema) -> list[Mutant]:
    """The mutants of a query in a fixed order, no two with the same text and none with the query's."""
    root = unwrapped(tree)
    original = root.sql(dialect=DIALECT)
    found: dict[str, Mutant] = {}
    for kind, operator in OPERATORS.items():
        made = 0
        for index in range(sum(1 for _ in operator(root, schema))):
            changed = root.copy()
            changes = operator(changed, schema)
            change = next(islice(changes, index, None))
            with suppress(StopIteration):
                changes.send(True)
            changes.close()
            sql = changed.sql(dialect=DIALECT)
            if sql != original and sql not in found:
                found[sql] = Mutant(kind, change, sql)
                made += 1
            if made == MAX_PER_KIND:
                break
    return list(found.values())
