"""Mutants that are no mistakes: why a changed query means the same, where that can be seen from the text."""

from __future__ import annotations

from sqlglot import exp

from jobs.score.sql.mutate import Mutant
from jobs.score.sql.schema import Schema


def rule(mutant: Mutant, tree: exp.Expression, schema: Schema) -> str | None:
    """The rule by which the mutant is equivalent to the query, or None where none is known."""
    return None
