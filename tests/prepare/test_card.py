"""The card counts rows, tokens, repetitions, leakage and faults as they are in the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.data import tokens
from jobs.data.card import describe, leakage
from jobs.data.sources import read_part
from jobs.data.splits import Parts
from jobs.tasks.rows import Row
from jobs.tasks.sql import data_quality, prompt


def row(
    number: int, question: str, gold: str, db_id: str = "d", schema: str = "CREATE TABLE t (a INT)"
) -> Row:
    return prompt.make_row(
        str(number), question=question, gold=gold, context=schema, schema=schema, db_id=db_id
    )


def test_repetitions_inside_a_part() -> None:
    rows = [row(1, "Q1", "A"), row(2, "Q1", "A"), row(3, "Q1", "B"), row(4, "Q2", "A")]
    described = describe(rows)
    assert described["repeated"] == {"question": 2, "gold": 2, "row": 1}
    assert described["rows"] == 4
    assert described["databases"] == 1


def test_leakage_counts_rows_of_the_later_part() -> None:
    parts = Parts(
        train=[row(1, "Q1", "A"), row(2, "Q2", "B", "other")],
        validation=[],
        test=[row(3, "Q1", "A"), row(4, "Q1", "C", "new"), row(5, "Q3", "B", "new")],
    )
    assert leakage(parts)["test in train"] == {"question": 2, "gold": 2, "row": 1, "database": 1}
    assert leakage(parts)["test in validation"] == {"question": 0, "gold": 0, "row": 0, "database": 0}


@given(st.lists(st.integers(0, 500), min_size=1, max_size=80))
def test_token_statistics_are_nearest_rank(counts: list[int]) -> None:
    found = tokens.statistics(counts)
    ordered = sorted(counts)
    assert found["max"] == ordered[-1]
    assert found["total"] == sum(counts)
    assert sum(count <= found["p95"] for count in counts) >= 0.95 * len(counts)
    assert sum(count < found["p95"] for count in counts) < 0.95 * len(counts)
    assert sum(count <= found["p50"] for count in counts) * 2 >= len(counts)


def test_no_rows_have_no_statistics() -> None:
    assert tokens.statistics([]) == {}
    assert describe([])["rows"] == 0


def test_what_looks_like_a_special_token_is_counted_as_text() -> None:
    assert tokens.count("<|endoftext|>") > 1


def test_golds_that_do_not_compile_are_counted_and_nothing_is_run(tmp_path: Path) -> None:
    target = tmp_path / "made_by_attach.sqlite"
    rows = [
        row(1, "Q", "SELECT a FROM t"),
        row(2, "Q", "SELECT b FROM t"),
        row(3, "Q", "SELECT 1; SELECT 2"),
        row(4, "Q", f"ATTACH '{target}' AS x"),
        row(5, "Q", "SELECT a FROM t", schema=f"ATTACH '{target}' AS x; CREATE TABLE x.t (a INT)"),
        row(6, "Q", "SELECT a FROM t", schema="CREATE TABLE t (a INT); CREATE TABLE t (a INT)"),
        row(7, "Q", "SELECT a\0 FROM t"),
    ]
    counts = data_quality.compile_golds(rows)
    broken, narrow = counts.broken, counts.narrow
    assert broken == 6
    assert narrow == 1
    assert not target.exists()


def test_a_schema_that_never_ends_costs_one_row() -> None:
    endless = (
        "CREATE TABLE t AS WITH RECURSIVE c(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM c) SELECT a FROM c"
    )
    counts = data_quality.compile_golds([row(1, "Q", "SELECT a FROM t", schema=endless)])
    assert (counts.broken, counts.narrow) == (1, 0)


@pytest.mark.shared
def test_the_studys_known_faults_are_found(shared_data: Path) -> None:
    train = read_part("sql", "spider-create-context", shared_data, "train")
    test = read_part("sql", "spider-create-context", shared_data, "test")
    found = leakage(Parts(train, [], test))["test in train"]
    assert found["question"] == 3
    assert found["database"] == 0
    assert data_quality.compile_golds(test).broken == 44


@pytest.mark.shared
def test_viggos_known_leakage_is_found(shared_data: Path) -> None:
    parts = Parts(
        read_part("viggo", "viggo", shared_data, "train"),
        read_part("viggo", "viggo", shared_data, "validation"),
        read_part("viggo", "viggo", shared_data, "test"),
    )
    found = leakage(parts)
    assert found["test in train"]["gold"] == 36
    assert found["test in train"]["row"] == 0
