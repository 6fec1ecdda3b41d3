"""Explanations: reduction, partial failures, and notes on nondeterministic gold queries."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_sql_data import SqlData

from jobs.tasks.sql.execution import connections, explain, syntax, worker
from jobs.tasks.sql.execution.gold_plan import plan_gold
from jobs.tasks.sql.execution.query_runner import QueryLimits
from jobs.tasks.sql.execution.worker_pool import LostJob, WorkerPool
from launcher.cli.main import main

SINGER = "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT);"
ROWS = SINGER + "INSERT INTO singer VALUES (1, 'Ann', 'Chad'), (2, 'Bob', 'France'), (3, 'Eve', 'France');"


def proof(gold: str, answer: str, script: str = ROWS) -> Any:
    """The explanation on one database, as JSON."""
    with closing(connections.unguarded_image()) as connection:
        connection.execute(script)
        image = connection.serialize("main")
    plan = plan_gold(gold, syntax.parse(gold))

    def read_schema() -> Any:
        return explain.read_schema(lambda: connections.unguarded_image(image))

    with closing(connections.open_image(image)) as connection:
        database = explain.Database("real", connection, read_schema)
        return explain.explain(plan, answer, [database]).to_json()


def test_undecodable_text_survives_reduction() -> None:
    script = SINGER + "INSERT INTO singer VALUES (1, CAST(x'4DFC' AS TEXT), 'Chad'), (2, 'Bob', 'Chad');"
    found = proof("SELECT name FROM singer", "SELECT name FROM singer WHERE name >= 'C'", script)
    assert (found["shrunk"], found["tables"][0]["rows"]) == (True, [[2, "Bob", "Chad"]])
    found = proof("SELECT name FROM singer", "SELECT name FROM singer WHERE id > 1", script)
    assert (found["shrunk"], found["tables"][0]["rows"]) == (True, [[1, "M?", "Chad"]])


def test_slow_gold_query_leaves_the_rest_of_the_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "_LIMITS", QueryLimits(steps=10_000, cpu_s=60.0))
    many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000) SELECT count(*) FROM n, singer"
    found = proof(many, "SELECT name FROM singer")
    assert "too slow" in found["gold"]["error"]
    assert "too slow" in found["note"]
    assert (found["shrunk"], found["answer"]["of"], found["tables"][0]["of"]) == (False, 3, 3)


def test_database_that_cannot_be_copied_is_not_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_rows: object) -> bytes:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "no")

    monkeypatch.setattr(explain._Rows, "image", fail)
    found = proof("SELECT name FROM singer", "SELECT id FROM singer")
    assert (found["shrunk"], found["tables"][0]["of"]) == (False, 3)
    assert found["note"].startswith("not reduced: ")


CHANCE = "SELECT name, count(*) FROM singer"


@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_nondeterministic_gold_is_noted(order: str) -> None:
    found = proof(
        CHANCE, f"SELECT (SELECT name FROM singer ORDER BY id {order} LIMIT 1), count(*) FROM singer"
    )
    assert found["note"] == "the gold query is nondeterministic here; either result is right"
    assert (found["shrunk"], found["tables"][0]["of"]) == (False, 3)


def test_answer_outside_nondeterministic_results_is_noted() -> None:
    found = proof(CHANCE, "SELECT 'Zoe', count(*) FROM singer")
    assert (
        found["note"] == "the gold query is nondeterministic here, and the answer returns none of its results"
    )


def test_reduction_keeps_the_gold_deterministic() -> None:
    common = "SELECT country FROM singer GROUP BY country ORDER BY count(*) DESC LIMIT 1"
    found = proof(
        f"SELECT name FROM singer WHERE country = ({common})",
        "SELECT name FROM singer WHERE country = 'Chad'",
    )
    assert found["shrunk"]
    countries = [row[2] for row in found["tables"][0]["rows"]]
    assert countries.count("France") > countries.count("Chad")
    assert found["note"] is None


def test_terminal_shows_the_note_on_nondeterminism(
    sql_data: SqlData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = sql_data.directory / "train_spider.json"
    questions.write_text(f'[{{"question": "q", "query": "{CHANCE}", "db_id": "music"}}]')
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        '{"answer": "SELECT (SELECT name FROM singer ORDER BY id DESC LIMIT 1), count(*) FROM singer"}\n'
    )
    arguments = ["sql", "--data", str(sql_data.directory), "--split", "train", "--predictions", str(answers)]
    assert main(["score", *arguments, "--explain", "1"]) == 0
    shown = capsys.readouterr().out
    assert "strict yes" in shown
    assert "the gold query is nondeterministic here; either result is right" in shown
    assert "as small as it will go" not in shown


@dataclass(frozen=True)
class BrokenJob:
    """A job without what its task needs."""

    task: str
    database: None = None

    def to_json(self) -> dict[str, object]:
        return {"task": self.task, "cpu_s": 5}

    def read_result(self, value: Any) -> Any:
        return value


def test_failed_explanation_returns_its_error_and_keeps_the_worker() -> None:
    with WorkerPool(1) as pool:
        pool.map([BrokenJob("explain")])
        (before,) = pool.pids()
        (found,) = pool.map([BrokenJob("explain")])
        assert found == {"error": "KeyError: 'reference'"}
        assert pool.pids() == [before]


def test_failed_verdict_is_a_lost_job() -> None:
    with WorkerPool(1) as pool:
        (found,) = pool.map([BrokenJob("judge")])
    assert isinstance(found, LostJob)


def test_error_of_a_failed_explanation_is_one_short_line() -> None:
    def fail(_job: object) -> object:
        raise ValueError("a\nb\x1b[2J\ud800" + "c" * 1000)

    result: Any = worker.result_of(fail, {"task": "explain"})
    error = result["error"]
    assert error.startswith("ValueError: a b")
    assert error.isprintable()
    assert len(error) <= 300
    error.encode()
