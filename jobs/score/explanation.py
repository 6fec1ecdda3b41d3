"""One row's verdict as text: question, gold, answer, why, and the tables that prove it if the task has a proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.score.scoring import score_rows
from jobs.tasks.contract import ScoreContext
from jobs.tasks.registry import Task, question_of
from jobs.tasks.rows import Row
from launcher.outcome import Failure, Reason
from launcher.system.text import printable

_MAX_CELL_CHARACTERS = 40


def find_row(rows: Sequence[Row], name: str) -> int:
    """The place of the row called `name`: its id, or its number from 1. Raises Failure(USAGE)."""
    for index, row in enumerate(rows):
        if row.id == name:
            return index
    if name.isascii() and name.isdigit() and 1 <= int(name) <= len(rows):
        return int(name) - 1
    raise Failure(
        Reason.USAGE,
        f"there is no row '{name}'",
        where="--explain",
        next_step=f"name a number from 1 to {len(rows)} or an id such as {rows[0].id}",
    )


def explain(task: Task, context: ScoreContext, row: Row, answer: str) -> dict[str, Any]:
    """{"question", "score": the row's verdict, "proof": None if the task has none}. Raises Failure(BAD_DATA)."""
    if task.explain is not None:
        return {"question": question_of(row), **task.explain(row, answer, context)}
    scores, _ = score_rows(task, context, [row], [answer])
    return {"question": question_of(row), "score": scores[0].to_json(), "proof": None}


def text(explanation: dict[str, Any]) -> str:
    """The explanation for a terminal."""
    score, proof = explanation["score"], explanation["proof"]
    verdicts = ", ".join(f"{name} {_shown(value)}" for name, value in score["scores"].items())
    lines = [
        f"row       {score['id']}",
        f"question  {explanation['question']}",
        f"gold      {score['gold']}",
        f"answer    {score['answer']}",
        f"verdict   {verdicts}",
        f"why       {score['reason'] or 'nothing tells it from the gold'}",
    ]
    if proof is None:
        return "\n".join(lines)
    if "tables" not in proof:
        return "\n".join([*lines, "", f"no proof: {proof['error']}"])
    if proof.get("note"):
        lines.append(f"note      {proof['note']}")
    smaller = ", made as small as it will go" if proof["shrunk"] else ""
    lines += ["", f"on the database '{proof['database']}'{smaller}:"]
    for table in proof["tables"]:
        lines += ["", *_table(table["name"], table)]
    lines += [
        "",
        *_table("the gold returns", proof["gold"]),
        "",
        *_table("the answer returns", proof["answer"]),
    ]
    return "\n".join(lines)


def _shown(value: bool | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}"


def _table(title: str, table: dict[str, Any]) -> list[str]:
    if "error" in table:
        return [f"{title}: {table['error']}"]
    rows, of = table["rows"], table["of"]
    count = "no rows" if not of else f"{of} rows" if of > 1 else "1 row"
    if len(rows) < of:
        count += f", the first {len(rows)}"
    cells = [[_cell(name) for name in table["columns"]], *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shown = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return [f"{title} ({count})", *shown[:1], "  " + "  ".join("-" * width for width in widths), *shown[1:]]


def _cell(value: Any) -> str:
    plain = "NULL" if value is None else str(value)
    cell = printable(plain, replacement="\N{REPLACEMENT CHARACTER}")
    return cell if len(cell) <= _MAX_CELL_CHARACTERS else cell[: _MAX_CELL_CHARACTERS - 1] + "…"
