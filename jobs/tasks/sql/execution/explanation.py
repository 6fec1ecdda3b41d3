"""The result of explain.py: what gold and answer return on one database."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.tasks.sql.execution.compare import Value

#: Rows shown of each table.
SHOWN_ROWS = 20


@dataclass(frozen=True)
class ShownTable:
    """A table or result: at most SHOWN_ROWS of `of` rows, values as JSON has them."""

    columns: list[str]
    rows: list[list[Value]]
    of: int

    def to_json(self) -> dict[str, object]:
        return {"columns": self.columns, "rows": self.rows, "of": self.of}


@dataclass(frozen=True)
class Failed:
    """A query, or a whole explanation, that failed."""

    error: str

    def to_json(self) -> dict[str, object]:
        return {"error": self.error}


@dataclass(frozen=True)
class Explanation:
    """What gold and answer return on one database, and its tables that they read, by name.

    `note` is None, or says why the database is not reduced or why both results may be right.
    """

    database: str
    reduced: bool
    note: str | None
    tables: list[tuple[str, ShownTable | Failed]]
    gold: ShownTable | Failed
    answer: ShownTable | Failed

    def to_json(self) -> dict[str, object]:
        return {
            "database": self.database,
            "shrunk": self.reduced,
            "note": self.note,
            "tables": [{"name": name, **table.to_json()} for name, table in self.tables],
            "gold": self.gold.to_json(),
            "answer": self.answer.to_json(),
        }
