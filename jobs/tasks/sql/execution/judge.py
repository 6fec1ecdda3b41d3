"""What a sandbox worker does with a job: prepare a gold query, judge an answer, explain a verdict.

Results depend on the job alone. Open connections are kept between jobs, because opening a database costs
more than most queries.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from jobs.tasks.sql.execution import (
    compare,
    connections,
    disagreement,
    explain,
    normal_form,
    official_spider_eval,
    syntax,
)
from jobs.tasks.sql.execution.compare import Expected, Table
from jobs.tasks.sql.execution.cpu_limit import set_cpu_limit
from jobs.tasks.sql.execution.data_checks import compile_golds, database_state
from jobs.tasks.sql.execution.explanation import Explanation
from jobs.tasks.sql.execution.gold_results import allowed_results, alternative_results, digest, from_json
from jobs.tasks.sql.execution.prepare_gold import prepare_gold
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, run_query
from jobs.tasks.sql.execution.records import (
    AnswerJob,
    CompileJob,
    DatabaseJob,
    ExplainJob,
    GoldReference,
    JudgeJob,
    PrepareJob,
    Verdict,
)
from jobs.tasks.sql.execution.schema import Schema

#: Well below the descriptor limit of worker.py.
_MAX_OPEN_FILES = 40
_GOLD_LIMITS = QueryLimits()
#: CPU seconds after which the kernel kills a worker that runs a gold query or compares results.
GOLD_CPU_S = 60
#: Comparing more rows than this gets GOLD_CPU_S instead of the rest of the answer's CPU time.
_MANY_ROWS = 1_000
#: Open real databases by path, least recently used first.
_files: OrderedDict[str, apsw.Connection] = OrderedDict()
#: Open generated databases with their images, by position; the next job replaces their contents.
_images: list[tuple[str, apsw.Connection]] = []


def handle_job(job: Mapping[str, Any]) -> object:
    """The result of a job, as JSON; `job` is the `to_json` of a job of records.py."""
    match job["task"]:
        case "prepare":
            return prepare_gold(PrepareJob.from_json(job)).to_json()
        case "judge":
            return judge(JudgeJob.from_json(job)).to_json()
        case "explain":
            return explain_verdict(ExplainJob.from_json(job)).to_json()
        case "compile":
            return compile_golds(CompileJob.from_json(job))
        case "database":
            return database_state(DatabaseJob.from_json(job)).to_json()
        case task:
            raise ValueError(f"no task {task!r}")


def judge(job: JudgeJob) -> Verdict:
    """The verdicts on one answer."""
    trial = _Trial(job)
    strict = trial.strict()
    official = rule = None
    if job.official:
        # An unchanged query that failed fails again: a query that reached its limits is not run twice.
        fails_again = strict.failed and official_spider_eval.rewritten_answer(job.answer) == job.answer
        official = not fails_again and trial.official()
        if official != strict.right:
            rule = trial.disagreement(strict)
    normalised = _normalised_match(job.reference, job.answer) if job.normalise else None
    return Verdict(strict.right, strict.both_empty, strict.reason, official, rule, normalised)


def explain_verdict(job: ExplainJob) -> Explanation:
    """The rows that show the difference between gold and answer (see explain.py)."""
    images = {f"generated {n}": _decode_image(image) for n, image in enumerate(job.reference.images, 1)}

    def schema_of(name: str) -> Schema:
        if name == "real":
            return explain.read_schema(lambda: connections.unguarded_file(Path(job.database or "")))
        return explain.read_schema(lambda: connections.unguarded_image(images[name]))

    databases = [
        explain.Database(name, connection, partial(schema_of, name)) for name, connection in _databases(job)
    ]
    return explain.explain(job.reference.plan, job.answer, databases)


def _databases(job: AnswerJob) -> list[tuple[str, apsw.Connection]]:
    """(name, connection) of the databases to judge on, the real one first."""
    found = [("real", _open_real(job.database))] if job.reference.real and job.database else []
    for position, image in enumerate(job.reference.images):
        found.append((f"generated {position + 1}", _open_generated(position, image)))
    return found


def _open_real(path: str) -> apsw.Connection:
    """The connection to a real database, kept until _MAX_OPEN_FILES others were used more recently."""
    if path in _files:
        _files.move_to_end(path)
    else:
        _files[path] = connections.open_file(Path(path))
        if len(_files) > _MAX_OPEN_FILES:
            _files.popitem(last=False)[1].close()
    return _files[path]


def _open_generated(position: int, image: str) -> apsw.Connection:
    """The kept connection of a position, its database replaced by `image` if it holds another."""
    if position == len(_images):
        _images.append((image, connections.open_image(_decode_image(image))))
    elif _images[position][0] != image:
        connection = _images[position][1]
        connections.replace_image(connection, _decode_image(image))
        _images[position] = (image, connection)
    return _images[position][1]


def _decode_image(encoded: str) -> bytes:
    return zlib.decompress(base64.b64decode(encoded))


@dataclass(frozen=True)
class _StrictVerdict:
    """`matching` are the names of the databases on which no difference was found; `failed`: a query failed."""

    right: bool
    reason: str | None
    matching: Sequence[str]
    both_empty: bool = False
    failed: bool = False


class _Trial:
    """One answer on its databases. Each query runs once on each."""

    def __init__(self, job: JudgeJob) -> None:
        self._job, self._reference = job, job.reference
        self._databases = _databases(job)
        self._tables: dict[tuple[str, str], Table] = {}

    def strict(self) -> _StrictVerdict:
        """The strict verdict; a wrong answer is decided on the first database that shows a difference."""
        matches: list[_Match] = []
        names: list[str] = []
        for position, (name, connection) in enumerate(self._databases):
            try:
                given = self._run_answer(name, connection, self._job.answer)
            except QueryError as error:
                return _StrictVerdict(False, error.text(), names, failed=True)
            if self._has_known_digest(position, given):
                matches.append(_Match(given, None, True))
                names.append(name)
                continue
            try:
                choices = self._allowed(position)
            except QueryError as error:
                return _StrictVerdict(False, f"the gold query is {error.text()}", names, failed=True)
            match = _match(choices, given)
            if match is None:
                difference = compare.difference(choices[0], given)
                return _StrictVerdict(False, f"{difference.text()} (on database: {name})", names)
            matches.append(match)
            names.append(name)
        if not all(match.identical for match in matches) and not compare.same(
            [match.expected or self._matched(place, match.given) for place, match in enumerate(matches)],
            [match.given for match in matches],
        ):
            reason = "columns agree on each database, but in no order common to all"
            return _StrictVerdict(False, reason, names)
        return _StrictVerdict(True, None, names, both_empty=not any(match.given.rows for match in matches))

    def official(self) -> bool:
        """The verdict of the official Spider evaluation."""
        gold = official_spider_eval.rewritten(self._reference.sql)
        answer = official_spider_eval.rewritten_answer(self._job.answer)
        ordered = official_spider_eval.order_matters(gold)
        for name, connection in official_spider_eval.databases(self._databases):
            try:
                given = self._run_answer(name, connection, answer, drop_undecodable=True)
                if gold == answer:
                    continue
                set_cpu_limit(GOLD_CPU_S)
                expected = run_query(connection, gold, _GOLD_LIMITS, drop_undecodable=True)
            except QueryError:
                return False
            if not official_spider_eval.equal(expected, given, ordered):
                return False
        return True

    def disagreement(self, strict: _StrictVerdict) -> str:
        """The rule by which the official verdict differs from this one."""
        set_cpu_limit(GOLD_CPU_S)
        return disagreement.disagreement_rule(
            self._reference.sql,
            self._job.answer,
            self._reference.plan,
            strict.right,
            set(strict.matching),
            self._databases,
            _GOLD_LIMITS,
        )

    def _run_answer(
        self, name: str, connection: apsw.Connection, sql: str, *, drop_undecodable: bool = False
    ) -> Table:
        """What the answer's query returns. A call that SQLite cannot interrupt reaches the process's CPU limit."""
        table = self._tables.get((name, sql))
        if table is None or (table.undecodable and drop_undecodable):
            set_cpu_limit(math.ceil(self._job.limits.cpu_s) + 1)
            table = run_query(connection, sql, self._job.limits, drop_undecodable=drop_undecodable)
            self._tables[name, sql] = table
            if len(table.rows) > _MANY_ROWS:
                set_cpu_limit(GOLD_CPU_S)
        return table

    def _has_known_digest(self, position: int, given: Table) -> bool:
        """Whether the gold query returned exactly this table, if only digests of its results are stored."""
        digests = self._reference.expected[position].digests
        return bool(digests) and digest(given) in digests

    def _matched(self, position: int, given: Table) -> Expected:
        """The allowed results that contain a table whose digest is known."""
        choices = self._allowed(position)
        return next((choice for choice in choices if compare.as_is(choice, given)), choices[0])

    def _allowed(self, position: int) -> list[Expected]:
        """The results that the gold query allows on one database; several if it is nondeterministic there."""
        stored = self._reference.expected[position]
        if stored.results is not None:
            return [from_json(stored.results)]
        name, connection = self._databases[position]
        plan = self._reference.plan
        set_cpu_limit(GOLD_CPU_S)
        found = [allowed_results(connection, plan, _GOLD_LIMITS)]
        if stored.nondeterministic:
            if name == "real" and self._job.database:
                with closing(connections.open_file(Path(self._job.database), reverse=True)) as reverse:
                    found.append(allowed_results(reverse, plan, _GOLD_LIMITS))
            found += alternative_results(connection, plan, _GOLD_LIMITS)
        return found


@dataclass(frozen=True)
class _Match:
    """An answer's result and the expected one that it matches, None if a digest matched.

    `identical`: with every column in its place and every number exactly equal.
    """

    given: Table
    expected: Expected | None
    identical: bool


def _match(choices: Sequence[Expected], given: Table) -> _Match | None:
    for choice in choices:
        if compare.as_is(choice, given):
            return _Match(given, choice, True)
    for choice in choices:
        if compare.same([choice], [given]):
            return _Match(given, choice, False)
    return None


def _normalised_match(reference: GoldReference, answer: str) -> bool:
    set_cpu_limit(GOLD_CPU_S)
    tree = None if reference.normalised is None else syntax.parse_answer(answer)
    if tree is None:
        return answer == reference.sql
    return normal_form.normalised(tree, frozenset(reference.columns)) == reference.normalised
