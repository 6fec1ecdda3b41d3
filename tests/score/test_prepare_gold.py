"""Preparation of gold queries: the gold is right as its own answer, or its entry has a problem."""

from __future__ import annotations

from pathlib import Path

import pytest
from one_sql_case import judged, prepared, real_database

from jobs.tasks.sql.execution import gold_plan
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.prepare_gold import prepare_gold
from jobs.tasks.sql.execution.query_runner import QueryLimits
from jobs.tasks.sql.execution.records import PrepareJob, Verdict
from jobs.tasks.sql.execution.worker_pool import WorkerPool
from jobs.tasks.sql.judging import judge_job

SCHEMA = "CREATE TABLE t (id INTEGER PRIMARY KEY, day TEXT, age INTEGER)"
ROWS = ";".join(f"INSERT INTO t VALUES ({n}, '2014-01-{n % 27 + 1:02}', {n % 7})" for n in range(1, 61))


@pytest.mark.parametrize("kind", ["DATE", "DATETIME", "TIMESTAMP"])
@pytest.mark.parametrize(
    "gold",
    [
        "SELECT CAST(day AS {}) FROM t ORDER BY id",
        "SELECT id, day FROM t ORDER BY CAST(day AS {}), id LIMIT 7",
    ],
)
def test_gold_that_sqlglot_rewrites_is_right(gold: str, kind: str) -> None:
    entry = prepared(gold.format(kind), SCHEMA)
    assert judged(entry, gold.format(kind)).strict
    assert not judged(entry, "SELECT id FROM t ORDER BY id").strict


@pytest.mark.parametrize("broken", ["SELECT no_such_column FROM t", "SELECT id + 1, id FROM t ORDER BY id"])
def test_wrong_plan_falls_back_to_exact_order(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gold_plan, "plan_gold", lambda *_: GoldPlan(broken, "choice", 1, (-1,)))
    gold = "SELECT id FROM t ORDER BY id"
    entry = prepare_gold(PrepareJob(gold, None, SCHEMA, SCHEMA, seed=0))
    assert entry.reference, entry.problem
    assert entry.reference.plan.mode == "exact"
    assert judged(entry, gold).strict


COUNTING = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) SELECT max(i) FROM n"
)


def test_gold_without_a_database_has_a_problem() -> None:
    entry = prepared(COUNTING, SCHEMA)
    assert entry.reference is None
    assert entry.problem == "on generated databases: too slow: stopped at its limit of steps"


HEAVY = "SELECT max(a.age + b.age * c.age - d.age) FROM t AS a, t AS b, t AS c, t AS d WHERE d.id < 8"
FEW = QueryLimits(steps=1_000_000)


def test_heavy_gold_raises_the_answers_limits(tmp_path: Path) -> None:
    real = real_database(tmp_path / "real.sqlite", f"{SCHEMA};{ROWS}")
    entry = prepared(HEAVY, SCHEMA, real)
    assert entry.heavy
    answers = [HEAVY, HEAVY.replace("b.age * c.age", "c.age * b.age"), HEAVY.replace("d.age", "d.id")]
    with WorkerPool(1) as pool:
        verdicts = pool.map([judge_job(entry, answer, real, FEW) for answer in answers])
    assert [isinstance(verdict, Verdict) and verdict.strict for verdict in verdicts] == [True, True, False]


def test_light_gold_keeps_the_answers_limits(tmp_path: Path) -> None:
    real = real_database(tmp_path / "real.sqlite", f"{SCHEMA};{ROWS}")
    entry = prepared("SELECT 42 FROM t WHERE id = 1", SCHEMA, real)
    assert not entry.heavy
    with WorkerPool(1) as pool:
        (verdict,) = pool.map([judge_job(entry, HEAVY, real, FEW)])
    assert isinstance(verdict, Verdict)
    assert (verdict.reason or "").startswith("too slow")


@pytest.mark.parametrize(("more", "right"), [("INSERT INTO t VALUES (90, 'x', 99)", True), ("", False)])
def test_ties_only_in_generated_databases_do_not_matter(more: str, right: bool, tmp_path: Path) -> None:
    real = real_database(tmp_path / "real.sqlite", f"{SCHEMA};{ROWS};{more}")
    entry = prepared("SELECT day FROM t ORDER BY age DESC LIMIT 1", SCHEMA, real)
    verdict = judged(entry, "SELECT day FROM t WHERE age = (SELECT max(age) FROM t)", real)
    assert verdict.strict is right
