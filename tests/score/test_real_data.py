"""Scores on the shared real data: gold is right, a wrong literal is wrong, mutants are killed."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.data.sources import read_part
from jobs.tasks.sql.execution.kill_rate import kill_rate
from jobs.tasks.sql.judging import score
from jobs.tasks.viggo import scorer

pytestmark = pytest.mark.shared


def test_gold_is_right_on_the_studys_rows_and_mutants_are_killed(shared_data: Path) -> None:
    rows = read_part("sql", "spider-create-context", shared_data, "test")
    assert len(rows) == 568
    rows = rows[::12]
    found = score(rows, [row.gold for row in rows], shared_data, workers=2)
    valid = [row for row in found.rows if row.valid_gold]
    assert len(valid) >= 0.85 * len(rows)
    assert all(all(row.scores.values()) and row.reason is None for row in valid)
    assert kill_rate(found.golds).total.rate > 0.98


def test_gold_is_right_on_spiders_real_databases(shared_data: Path) -> None:
    rows = read_part("sql", "spider", shared_data, "train")
    assert len(rows) == 7000
    rows = rows[::100]
    found = score(rows, [row.gold for row in rows], shared_data, workers=2).rows
    assert all(row.valid_gold and row.scores["strict"] and row.scores["official"] for row in found)


def test_a_wrong_literal_is_wrong_on_a_real_database(shared_data: Path) -> None:
    row = read_part("sql", "spider", shared_data, "train")[0]
    answers = ["SELECT count(*) FROM head WHERE age > 57", "SELECT count(*) FROM head WHERE 56 < age"]
    rows = [row, replace(row, id="again")]
    found = score(rows, answers, shared_data, workers=1).rows
    assert [one.scores["strict"] for one in found] == [False, True]


def test_viggo_gold_is_right(shared_data: Path) -> None:
    rows = read_part("viggo", "viggo", shared_data, "test")
    found = scorer.score(rows, [row.gold for row in rows]).rows
    assert len(found) == 1083
    assert all(one.scores["exact"] and one.scores["canonical"] for one in found)
