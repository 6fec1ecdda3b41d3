"""What a sandboxed worker does: make a gold query ready, judge an answer against it.

Everything here is a function of the job alone, except the open real databases, which are kept
because opening one costs more than most queries.
"""

from __future__ import annotations

import base64
import math
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from jobs.score.sql import agreement, compare, engine, explain, official, prepare, syntax
from jobs.score.sql.compare import Expected, Table
from jobs.score.sql.engine import Limits, QueryError
from jobs.score.sql.gold import allowed, from_json
from jobs.score.sql.schema import Schema
from jobs.score.sql.worker import allow_cpu

#: More than the generated databases of one query and few enough descriptors (see worker.py).
_OPEN_DATABASES = 40
#: Longer queries are not parsed for the normalised match: they are nobody's answer.
_MAX_PARSED_CHARACTERS = 10_000
_LIMITS = Limits()
_PARSE_CPU_S = 5
#: CPU seconds after which the kernel ends a worker that is busy with a gold query.
GOLD_CPU_S = 60
_open: OrderedDict[str, sqlite3.Connection] = OrderedDict()


def handle(job: dict[str, Any]) -> Any:
    """Answer one job; its "task" says which."""
    tasks: dict[str, Callable[[dict[str, Any]], Any]] = {
        "prepare": prepare.prepare,
        "judge": judge,
        "explain": explain_job,
    }
    return tasks[job["task"]](job)


def _databases(job: dict[str, Any]) -> list[tuple[str, sqlite3.Connection]]:
    """The databases to judge on, named, open: the real one first, then the generated ones."""
    images = [_opened(image, lambda name: engine.open_image(_image(name))) for image in job["gold"]["images"]]
    found = [(f"generated {number}", connection) for number, connection in enumerate(images, 1)]
    if job["gold"]["real"]:
        found.insert(0, ("real", _opened(job["database"], lambda name: engine.open_file(Path(name)))))
    return found


def _opened(name: str, open_it: Callable[[str], sqlite3.Connection]) -> sqlite3.Connection:
    """A database by its path or its image, opened once; those not used for long are closed."""
    if name in _open:
        _open.move_to_end(name)
    else:
        _open[name] = open_it(name)
        if len(_open) > _OPEN_DATABASES:
            _open.popitem(last=False)[1].close()
    return _open[name]


def explain_job(job: dict[str, Any]) -> dict[str, Any]:
    """The proof of a verdict (see explain.py). `job` as for `judge`."""
    images = {f"generated {n}": _image(image) for n, image in enumerate(job["gold"]["images"], 1)}

    def schema_of(name: str) -> Schema:
        if name == "real":
            return explain.schema_of(lambda: sqlite3.connect(engine.address(Path(job["database"])), uri=True))
        return explain.schema_of(lambda: engine.unguarded(images[name]))

    listed = [(name, connection, partial(schema_of, name)) for name, connection in _databases(job)]
    return explain.explain(_plan(job["gold"]), job["answer"], listed)


def _plan(gold: dict[str, Any]) -> syntax.GoldPlan:
    return syntax.GoldPlan(**{**gold["plan"], "keys": tuple(gold["plan"]["keys"])})


def _image(encoded: str) -> bytes:
    return zlib.decompress(base64.b64decode(encoded))


def _allowed(
    job: dict[str, Any], place: int, name: str, connection: sqlite3.Connection, plan: syntax.GoldPlan
) -> list[Expected]:
    """What the gold query allows on one database; on the real one also what it returns with rows visited backwards.

    Generated databases on which that differs are not used at all.
    """
    kept = job["gold"]["expected"][place]
    if kept is not None:
        return [from_json(kept)]
    found = [allowed(connection, plan, _LIMITS)]
    if name == "real" and job["gold"]["ambiguous"]:
        with closing(engine.open_file(Path(job["database"]), reverse=True)) as reverse:
            found.append(allowed(reverse, plan, _LIMITS))
    return found


def judge(job: dict[str, Any]) -> dict[str, Any]:
    """Verdicts on one answer: {"strict", "official", "exact_normalised", "both_empty", "reason", "disagreement"}.

    `job` holds the answer's query, the gold query's entry of prepare.py, the real database's path, and
    what the answer may use; "official" and "normalise" False leave those two out.
    """
    gold, answer = job["gold"], job["answer"]
    databases = _databases(job)
    verdict = _strict(job, databases)
    failed, fitting = verdict.pop("failed"), set(verdict.pop("fitting"))
    if job.get("official", True):
        # What failed and stays as it is fails again: a query that ran amok is not run twice.
        hopeless = failed and official.rewritten_answer(answer) == answer
        verdict["official"] = not hopeless and _official(job, databases)
        differ = verdict["official"] != verdict["strict"]
        verdict["disagreement"] = (
            _disagreement(job, databases, verdict["strict"], fitting) if differ else None
        )
    if job.get("normalise", True):
        verdict["exact_normalised"] = _normalised_match(gold, answer)
    return verdict


def answer_limits(job: dict[str, Any]) -> Limits:
    """What the answer's query may use on each database."""
    return Limits(**job["limits"])


def _run_answer(
    connection: sqlite3.Connection, sql: str, limits: Limits, *, drop_undecodable: bool = False
) -> Table:
    """The answer's result; the process is killed where the query cannot be stopped in time."""
    allow_cpu(math.ceil(limits.cpu_s) + 1)
    try:
        return engine.run(connection, sql, limits, drop_undecodable=drop_undecodable)
    finally:
        allow_cpu(GOLD_CPU_S)


def _strict(job: dict[str, Any], databases: list[tuple[str, sqlite3.Connection]]) -> dict[str, Any]:
    """The strict verdict and, where it is no, why: decided on the first database that tells."""
    gold, answer = job["gold"], job["answer"]
    plan = _plan(gold)
    expected: list[Expected] = []
    given: list[Table] = []
    fitting: list[str] = []
    for place, (name, connection) in enumerate(databases):
        try:
            given.append(_run_answer(connection, answer, answer_limits(job)))
        except QueryError as error:
            return _wrong(error.text(), fitting, failed=True)
        try:
            choices = _allowed(job, place, name, connection, plan)
        except QueryError as error:
            return _wrong(f"the gold query is {error.text()}", fitting, failed=True)
        fit = next((choice for choice in choices if compare.same([choice], given[-1:])), None)
        if fit is None:
            difference = compare.difference(choices[0], given[-1])
            return _wrong(f"{difference.text()} (on database: {name})", fitting)
        expected.append(fit)
        fitting.append(name)
    if not compare.same(expected, given):
        return _wrong("columns agree on each database, but in no order common to all", fitting)
    both_empty = all(not e.length for e in expected)
    return {"strict": True, "both_empty": both_empty, "reason": None, "failed": False, "fitting": fitting}


def _wrong(reason: str, fitting: list[str], *, failed: bool = False) -> dict[str, Any]:
    return {"strict": False, "both_empty": False, "reason": reason, "failed": failed, "fitting": fitting}


def _disagreement(
    job: dict[str, Any], databases: list[tuple[str, sqlite3.Connection]], strict: bool, fitting: set[str]
) -> str:
    gold = job["gold"]
    return agreement.rule(gold["sql"], job["answer"], _plan(gold), strict, fitting, databases, _LIMITS)


def _official(job: dict[str, Any], databases: list[tuple[str, sqlite3.Connection]]) -> bool:
    """The official verdict: on the real database alone where there is one, as published numbers are."""
    texts = official.rewritten(job["gold"]["sql"]), official.rewritten_answer(job["answer"])
    ordered = official.order_matters(texts[0])
    for _, connection in official.databases(databases):
        try:
            table = _run_answer(connection, texts[1], answer_limits(job), drop_undecodable=True)
            wanted = engine.run(connection, texts[0], _LIMITS, drop_undecodable=True)
        except QueryError:
            return False
        if not official.equal(wanted, table, ordered):
            return False
    return True


def _normalised_match(gold: dict[str, Any], answer: str) -> bool:
    if gold["normalised"] is None or len(answer) > _MAX_PARSED_CHARACTERS:
        return bool(answer == gold["sql"])
    allow_cpu(_PARSE_CPU_S)
    normal = syntax.normalised(syntax.parse(answer), frozenset(gold["columns"]))
    return bool(normal == gold["normalised"])
