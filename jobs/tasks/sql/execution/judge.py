"""What a sandboxed worker does: make a gold query ready, judge an answer against it.

Everything here is a function of the job alone, except the open real databases, which are kept
because opening one costs more than most queries.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from jobs.tasks.sql.execution import (
    compare,
    disagreement,
    engine,
    explain,
    official_spider_eval,
    prepare_gold,
    syntax,
)
from jobs.tasks.sql.execution.compare import Expected, Table
from jobs.tasks.sql.execution.cpu_limit import allow_cpu
from jobs.tasks.sql.execution.engine import QueryError, QueryLimits
from jobs.tasks.sql.execution.gold_results import allowed_results, alternative_results, digest, from_json
from jobs.tasks.sql.execution.schema import Schema

#: Few enough descriptors (see worker.py).
_OPEN_FILES = 40
_LIMITS = QueryLimits()
#: CPU seconds after which the kernel ends a worker that is busy with a gold query.
GOLD_CPU_S = 60
#: Comparing more than these may take longer than what is left of the answer's own time.
_MANY_ROWS = 1_000
#: The real databases that are open, by path.
_files: OrderedDict[str, apsw.Connection] = OrderedDict()
#: The generated databases that are open, with their images: each job's take the places of those before.
_images: list[tuple[str, apsw.Connection]] = []


def handle_job(job: dict[str, Any]) -> Any:
    """Answer one job; its "task" says which."""
    tasks: dict[str, Callable[[dict[str, Any]], Any]] = {
        "prepare": prepare_gold.prepare_gold,
        "judge": judge,
        "explain": explain_job,
    }
    return tasks[job["task"]](job)


def _databases(job: dict[str, Any]) -> list[tuple[str, apsw.Connection]]:
    """The databases to judge on, named, open: the real one first, then the generated ones."""
    found = [("real", _opened(job["database"]))] if job["gold"]["real"] else []
    for place, image in enumerate(job["gold"]["images"]):
        found.append((f"generated {place + 1}", _holding(place, image)))
    return found


def _opened(path: str) -> apsw.Connection:
    """A real database, opened once; those not used for long are closed."""
    if path in _files:
        _files.move_to_end(path)
    else:
        _files[path] = engine.open_file(Path(path))
        if len(_files) > _OPEN_FILES:
            _files.popitem(last=False)[1].close()
    return _files[path]


def _holding(place: int, image: str) -> apsw.Connection:
    """The connection at a place, holding this generated database."""
    if place == len(_images):
        _images.append((image, engine.open_image(_image(image))))
    elif _images[place][0] != image:
        connection = _images[place][1]
        engine.replace_image(connection, _image(image))
        _images[place] = (image, connection)
    return _images[place][1]


def explain_job(job: dict[str, Any]) -> dict[str, Any]:
    """The proof of a verdict (see explain.py). `job` as for `judge`."""
    images = {f"generated {n}": _image(image) for n, image in enumerate(job["gold"]["images"], 1)}

    def schema_of(name: str) -> Schema:
        if name == "real":
            return explain.schema_of(lambda: engine.unguarded_file(Path(job["database"])))
        return explain.schema_of(lambda: engine.unguarded_image(images[name]))

    listed = [(name, connection, partial(schema_of, name)) for name, connection in _databases(job)]
    return explain.explain(_plan(job["gold"]), job["answer"], listed)


def _plan(gold: dict[str, Any]) -> syntax.GoldPlan:
    return syntax.GoldPlan(**{**gold["plan"], "keys": tuple(gold["plan"]["keys"])})


def _image(encoded: str) -> bytes:
    return zlib.decompress(base64.b64decode(encoded))


def judge(job: dict[str, Any]) -> dict[str, Any]:
    """Verdicts on one answer: {"strict", "official", "exact_normalised", "both_empty", "reason", "disagreement"}.

    `job` holds the answer's query, the gold query's entry of prepare.py, the real database's path, and
    what the answer may use; "official" and "normalise" False leave those two out.
    """
    gold, answer = job["gold"], job["answer"]
    case = _Case(job)
    verdict = case.strict()
    failed, fitting = verdict.pop("failed"), set(verdict.pop("fitting"))
    if job.get("official", True):
        # What failed and stays as it is fails again: a query that ran amok is not run twice.
        hopeless = failed and official_spider_eval.rewritten_answer(answer) == answer
        verdict["official"] = not hopeless and case.official()
        differ = verdict["official"] != verdict["strict"]
        verdict["disagreement"] = (
            _disagreement(job, case.databases, verdict["strict"], fitting) if differ else None
        )
    if job.get("normalise", True):
        verdict["exact_normalised"] = _normalised_match(gold, answer)
    return verdict


class _Case:
    """One answer before its databases. What a query has returned on one of them is not asked again."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job, self._gold, self._answer = job, job["gold"], job["answer"]
        self._limits = QueryLimits(**job["limits"])
        self._plan = _plan(self._gold)
        self.databases = _databases(job)
        self._tables: dict[tuple[str, str], Table] = {}

    def strict(self) -> dict[str, Any]:
        """The strict verdict and, where it is no, why: decided on the first database that tells."""
        fits: list[_Fit] = []
        fitting: list[str] = []
        for place, (name, connection) in enumerate(self.databases):
            try:
                given = self._answered(name, connection, self._answer)
            except QueryError as error:
                return _wrong(error.text(), fitting, failed=True)
            if self._is_known(place, given):
                fits.append(_Fit(given, None, True))
                fitting.append(name)
                continue
            try:
                choices = self._allowed(place)
            except QueryError as error:
                return _wrong(f"the gold query is {error.text()}", fitting, failed=True)
            fit = _fit(choices, given)
            if fit is None:
                difference = compare.difference(choices[0], given)
                return _wrong(f"{difference.text()} (on database: {name})", fitting)
            fits.append(fit)
            fitting.append(name)
        if not all(fit.as_is for fit in fits) and not compare.same(
            [fit.expected or self._known(place, fit.given) for place, fit in enumerate(fits)],
            [fit.given for fit in fits],
        ):
            return _wrong("columns agree on each database, but in no order common to all", fitting)
        both_empty = not any(fit.given.rows for fit in fits)
        return {"strict": True, "both_empty": both_empty, "reason": None, "failed": False, "fitting": fitting}

    def official(self) -> bool:
        """The official verdict: on the real database alone where there is one, as published numbers are."""
        gold, answer = (
            official_spider_eval.rewritten(self._gold["sql"]),
            official_spider_eval.rewritten_answer(self._answer),
        )
        ordered = official_spider_eval.order_matters(gold)
        for name, connection in official_spider_eval.databases(self.databases):
            try:
                table = self._answered(name, connection, answer, drop_undecodable=True)
                if gold == answer:
                    continue
                allow_cpu(GOLD_CPU_S)
                wanted = engine.run(connection, gold, _LIMITS, drop_undecodable=True)
            except QueryError:
                return False
            if not official_spider_eval.equal(wanted, table, ordered):
                return False
        return True

    def _answered(
        self, name: str, connection: apsw.Connection, sql: str, *, drop_undecodable: bool = False
    ) -> Table:
        """What the answer's query returns; the process is killed where it cannot be stopped in time."""
        table = self._tables.get((name, sql))
        if table is None or (table.undecodable and drop_undecodable):
            allow_cpu(math.ceil(self._limits.cpu_s) + 1)
            table = engine.run(connection, sql, self._limits, drop_undecodable=drop_undecodable)
            self._tables[name, sql] = table
            if len(table.rows) > _MANY_ROWS:
                allow_cpu(GOLD_CPU_S)
        return table

    def _is_known(self, place: int, given: Table) -> bool:
        """Whether the gold query itself has returned just this; asked only where its result is too much to keep."""
        kept = self._gold["expected"][place]
        return isinstance(kept, dict) and digest(given) in kept["digests"]

    def _known(self, place: int, given: Table) -> Expected:
        """What the gold query allows where `_is_known`, in full."""
        choices = self._allowed(place)
        return next((choice for choice in choices if compare.as_is(choice, given)), choices[0])

    def _allowed(self, place: int) -> list[Expected]:
        """What the gold query allows on one database: where chance has a part, all that it has shown there."""
        kept = self._gold["expected"][place]
        if not isinstance(kept, dict):
            return [from_json(kept)]
        name, connection = self.databases[place]
        allow_cpu(GOLD_CPU_S)
        found = [allowed_results(connection, self._plan, _LIMITS)]
        if kept["chance"]:
            if name == "real":
                with closing(engine.open_file(Path(self._job["database"]), reverse=True)) as reverse:
                    found.append(allowed_results(reverse, self._plan, _LIMITS))
            found += alternative_results(connection, self._plan, _LIMITS)
        return found


@dataclass(frozen=True)
class _Fit:
    """An answer's result on one database, and the result allowed there that it is; None where a digest says so."""

    given: Table
    expected: Expected | None
    as_is: bool


def _fit(choices: Sequence[Expected], given: Table) -> _Fit | None:
    for choice in choices:
        if compare.as_is(choice, given):
            return _Fit(given, choice, True)
    for choice in choices:
        if compare.same([choice], [given]):
            return _Fit(given, choice, False)
    return None


def _wrong(reason: str, fitting: list[str], *, failed: bool = False) -> dict[str, Any]:
    return {"strict": False, "both_empty": False, "reason": reason, "failed": failed, "fitting": fitting}


def _disagreement(
    job: dict[str, Any], databases: list[tuple[str, apsw.Connection]], strict: bool, fitting: set[str]
) -> str:
    gold = job["gold"]
    allow_cpu(GOLD_CPU_S)
    return disagreement.disagreement_rule(
        gold["sql"], job["answer"], _plan(gold), strict, fitting, databases, _LIMITS
    )


def _normalised_match(gold: dict[str, Any], answer: str) -> bool:
    allow_cpu(GOLD_CPU_S)
    tree = None if gold["normalised"] is None else syntax.parse_answer(answer)
    if tree is None:
        return bool(answer == gold["sql"])
    return bool(syntax.normalised(tree, frozenset(gold["columns"])) == gold["normalised"])
