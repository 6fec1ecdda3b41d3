"""What a sandboxed worker does: make a gold query ready, judge an answer against it.

Everything here is a function of the job alone, except the open real databases, which are kept
because opening one costs more than most queries.
"""

from __future__ import annotations

import base64
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.score.sql import compare, engine, official, prepare, syntax
from jobs.score.sql.compare import Expected, Table
from jobs.score.sql.engine import Limits, QueryError
from jobs.score.sql.gold import allowed

_OPEN_DATABASES = 24
#: Longer queries are not parsed for the normalised match: they are nobody's answer.
_MAX_PARSED_CHARACTERS = 10_000
_LIMITS = Limits()
_open: OrderedDict[str, sqlite3.Connection] = OrderedDict()


def handle(job: dict[str, Any]) -> Any:
    """Answer one job; its "task" says which."""
    tasks: dict[str, Callable[[dict[str, Any]], Any]] = {"prepare": prepare.prepare, "judge": judge}
    return tasks[job["task"]](job)


@contextmanager
def _databases(job: dict[str, Any]) -> Iterator[list[tuple[str, sqlite3.Connection]]]:
    """The databases to judge on, named: the real one first, then the generated ones."""
    gold = job["gold"]
    found = [("real", _real(job["database"]))] if gold["real"] else []
    images = [engine.open_image(zlib.decompress(base64.b64decode(image))) for image in gold["images"]]
    found += [(f"generated {number}", connection) for number, connection in enumerate(images, 1)]
    try:
        yield found
    finally:
        for connection in images:
            connection.close()


def _real(path: str) -> sqlite3.Connection:
    """A real database, opened once."""
    if path in _open:
        _open.move_to_end(path)
    else:
        _open[path] = engine.open_file(Path(path))
        if len(_open) > _OPEN_DATABASES:
            _open.popitem(last=False)[1].close()
    return _open[path]


def judge(job: dict[str, Any]) -> dict[str, Any]:
    """Verdicts on one answer: {"strict", "official", "exact_normalised", "both_empty", "reason"}.

    `job` holds the answer's query, the gold query's entry of prepare.py, and the real database's path.
    """
    gold, answer = job["gold"], job["answer"]
    with _databases(job) as databases:
        strict = _strict(gold, answer, databases)
        verdict = {**strict, "official": _official(gold["sql"], answer, databases)}
    if job.get("normalise", True):
        verdict["exact_normalised"] = _normalised_match(gold, answer)
    return verdict


def _strict(
    gold: dict[str, Any], answer: str, databases: list[tuple[str, sqlite3.Connection]]
) -> dict[str, Any]:
    plan = syntax.GoldPlan(**{**gold["plan"], "keys": tuple(gold["plan"]["keys"])})
    expected: list[Expected] = []
    given: list[Table] = []
    for name, connection in databases:
        try:
            given.append(engine.run(connection, answer, _LIMITS))
        except QueryError as error:
            return {"strict": False, "both_empty": False, "reason": error.text()}
        try:
            expected.append(allowed(connection, plan, _LIMITS))
        except QueryError as error:
            return {"strict": False, "both_empty": False, "reason": f"the gold query is {error.text()}"}
        if not compare.same(expected[-1:], given[-1:]):
            difference = compare.difference(expected[-1], given[-1])
            return {
                "strict": False,
                "both_empty": False,
                "reason": f"{difference.text()} (on database: {name})",
            }
    strict = compare.same(expected, given)
    return {
        "strict": strict,
        "both_empty": strict and all(not e.length for e in expected),
        "reason": None if strict else "columns agree on each database, but in no order common to all",
    }


def _official(gold: str, answer: str, databases: list[tuple[str, sqlite3.Connection]]) -> bool:
    ordered = official.order_matters(official.rewritten(gold))
    for _, connection in databases:
        try:
            pair = [engine.run(connection, official.rewritten(sql), _LIMITS) for sql in (gold, answer)]
        except QueryError:
            return False
        if not official.equal(pair[0], pair[1], ordered):
            return False
    return True


def _normalised_match(gold: dict[str, Any], answer: str) -> bool:
    if gold["normalised"] is None or len(answer) > _MAX_PARSED_CHARACTERS:
        return bool(answer == gold["sql"])
    normal = syntax.normalised(syntax.parse(answer), frozenset(gold["columns"]))
    return bool(normal == gold["normalised"])
