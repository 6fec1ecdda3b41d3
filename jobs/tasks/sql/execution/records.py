"""What the scorer and its sandbox workers exchange: jobs, and their results.

A job crosses the pipe as its `to_json()`; a result comes back as JSON, is read by the job's `read_result`
and kept in the cache as the result's `to_json()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.query_runner import QueryLimits

Result_co = TypeVar("Result_co", covariant=True)
JsonObject = Mapping[str, Any]

#: CPU seconds after which the kernel kills the worker of a job.
_PREPARE_CPU_S = 300
_JUDGE_CPU_S = 60
_CHECK_CPU_S = 4


class Job(Protocol[Result_co]):
    """A pure function call for a worker. The JSON has "task" and "cpu_s", the job's CPU limit in seconds."""

    @property
    def database(self) -> str | None: ...

    def to_json(self) -> dict[str, object]: ...

    def read_result(self, value: Any) -> Result_co: ...


@dataclass(frozen=True)
class StoredResults:
    """The results that a gold query allows on one database.

    `results` is the JSON of gold_results.to_json. It is None if they are too large or nondeterministic: then
    `digests` are those of results that the query returned there, and other results may be right too.
    """

    results: Any = None
    digests: tuple[str, ...] = ()
    nondeterministic: bool = False

    def to_json(self) -> object:
        if self.results is not None:
            return self.results
        return {"digests": self.digests, "nondeterministic": self.nondeterministic}

    @classmethod
    def from_json(cls, value: Any) -> StoredResults:
        if isinstance(value, dict):
            return cls(None, tuple(value["digests"]), value["nondeterministic"])
        return cls(value)


@dataclass(frozen=True)
class GoldReference:
    """What an answer is compared with: a gold query, its databases and the results it allows on them.

    `real` says whether the real database is used. `expected` has one item per database, the real one first;
    `images` are the generated ones, as base64 of zlib. `columns` are the schema's names in lower case.
    """

    sql: str
    plan: GoldPlan
    real: bool
    expected: tuple[StoredResults, ...]
    images: tuple[str, ...]
    columns: tuple[str, ...]
    normalised: str | None

    def to_json(self) -> dict[str, object]:
        return {
            "sql": self.sql,
            "plan": self.plan.to_json(),
            "real": self.real,
            "expected": [stored.to_json() for stored in self.expected],
            "images": self.images,
            "columns": self.columns,
            "normalised": self.normalised,
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> GoldReference:
        return cls(
            value["sql"],
            GoldPlan.from_json(value["plan"]),
            value["real"],
            tuple(map(StoredResults.from_json, value["expected"])),
            tuple(value["images"]),
            tuple(value["columns"]),
            value["normalised"],
        )


@dataclass(frozen=True)
class SurvivingMutant:
    """A mutant that no database kills; `rule` proves it equivalent to the gold query, or is None."""

    kind: str
    change: str
    sql: str
    rule: str | None


@dataclass(frozen=True)
class GoldEntry:
    """A gold query prepared for judging answers.

    `reference` is None if the query runs on no database; `problem` says why. `ambiguous`: its result on the
    real database is nondeterministic. `heavy`: it needs more steps there than most. `mutants` counts the
    mutants made, by kind.
    """

    sql: str
    reference: GoldReference | None = None
    problem: str | None = None
    ambiguous: bool = False
    heavy: bool = False
    hardness: str = "unknown"
    mutants: Mapping[str, int] = field(default_factory=dict)
    survivors: tuple[SurvivingMutant, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {
            "sql": self.sql,
            "reference": None if self.reference is None else self.reference.to_json(),
            "problem": self.problem,
            "ambiguous": self.ambiguous,
            "heavy": self.heavy,
            "hardness": self.hardness,
            "mutants": dict(self.mutants),
            "survivors": [[m.kind, m.change, m.sql, m.rule] for m in self.survivors],
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> GoldEntry:
        reference = value["reference"]
        return cls(
            value["sql"],
            None if reference is None else GoldReference.from_json(reference),
            value["problem"],
            value["ambiguous"],
            value["heavy"],
            value["hardness"],
            value["mutants"],
            tuple(SurvivingMutant(*mutant) for mutant in value["survivors"]),
        )


@dataclass(frozen=True)
class PrepareJob:
    """Prepare one gold query (prepare_gold.py).

    `database` is the path of the real database; `schema` and `context` are CREATE TABLE text, of all tables
    and of those in the prompt.
    """

    sql: str
    database: str | None
    schema: str
    context: str
    seed: int

    def to_json(self) -> dict[str, object]:
        return {
            "task": "prepare",
            "cpu_s": _PREPARE_CPU_S,
            "sql": self.sql,
            "database": self.database,
            "schema": self.schema,
            "context": self.context,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> PrepareJob:
        return cls(value["sql"], value["database"], value["schema"], value["context"], value["seed"])

    def read_result(self, value: Any) -> GoldEntry:
        return GoldEntry.from_json(value)


@dataclass(frozen=True)
class CompileJob:
    """Compile the gold queries of one schema (data_checks.py)."""

    schema: str
    golds: tuple[str, ...]
    database: str | None = None

    def to_json(self) -> dict[str, object]:
        return {"task": "compile", "cpu_s": _CHECK_CPU_S, "schema": self.schema, "golds": self.golds}

    @classmethod
    def from_json(cls, value: JsonObject) -> CompileJob:
        return cls(value["schema"], tuple(value["golds"]))

    def read_result(self, value: Any) -> tuple[int, int]:
        broken, narrow = value
        return broken, narrow


@dataclass(frozen=True)
class DatabaseState:
    """Whether an SQLite file has no rows; `problem` says why it cannot be read."""

    empty: bool | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, object]:
        return {"empty": self.empty, "problem": self.problem}


@dataclass(frozen=True)
class DatabaseJob:
    """Look at an SQLite file of the data (data_checks.py)."""

    database: str

    def to_json(self) -> dict[str, object]:
        return {"task": "database", "cpu_s": _CHECK_CPU_S, "database": self.database}

    @classmethod
    def from_json(cls, value: JsonObject) -> DatabaseJob:
        return cls(value["database"])

    def read_result(self, value: Any) -> DatabaseState:
        return DatabaseState(**value)


@dataclass(frozen=True)
class Verdict:
    """Verdicts on one answer; `official` and `exact_normalised` are None if the job left them out.

    `reason` says why the strict verdict is no; `disagreement` is the rule by which the official one differs.
    """

    strict: bool
    both_empty: bool
    reason: str | None
    official: bool | None = None
    disagreement: str | None = None
    exact_normalised: bool | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "strict": self.strict,
            "both_empty": self.both_empty,
            "reason": self.reason,
            "official": self.official,
            "disagreement": self.disagreement,
            "exact_normalised": self.exact_normalised,
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> Verdict:
        return cls(**value)


@dataclass(frozen=True)
class AnswerJob:
    """One answer to a gold query: the query, the path of the real database, what the answer may use on each."""

    reference: GoldReference
    answer: str
    database: str | None
    limits: QueryLimits

    def _to_json(self, task: str) -> dict[str, object]:
        return {
            "task": task,
            "cpu_s": _JUDGE_CPU_S,
            "reference": self.reference.to_json(),
            "answer": self.answer,
            "database": self.database,
            "limits": self.limits.to_json(),
        }


@dataclass(frozen=True)
class JudgeJob(AnswerJob):
    """Judge an answer (judge.py)."""

    official: bool = True
    normalise: bool = True

    def to_json(self) -> dict[str, object]:
        return {**self._to_json("judge"), "official": self.official, "normalise": self.normalise}

    @classmethod
    def from_json(cls, value: JsonObject) -> JudgeJob:
        return cls(
            GoldReference.from_json(value["reference"]),
            value["answer"],
            value["database"],
            QueryLimits(**value["limits"]),
            value["official"],
            value["normalise"],
        )

    def read_result(self, value: Any) -> Verdict:
        return Verdict.from_json(value)


@dataclass(frozen=True)
class ExplainJob(AnswerJob):
    """Explain a verdict (explain.py)."""

    def to_json(self) -> dict[str, object]:
        return self._to_json("explain")

    @classmethod
    def from_json(cls, value: JsonObject) -> ExplainJob:
        return cls(
            GoldReference.from_json(value["reference"]),
            value["answer"],
            value["database"],
            QueryLimits(**value["limits"]),
        )

    def read_result(self, value: Any) -> JsonObject:
        """The JSON of an Explanation or Failed of explanation.py."""
        found: JsonObject = value
        return found
