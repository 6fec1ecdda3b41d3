"""Comparison of query results: order, ties, columns, tolerance, and descriptions of differences."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.tasks.sql.execution.compare import (
    Expected,
    Row,
    Segment,
    Table,
    difference,
    grouped,
    in_order,
    same,
    unordered,
)

VALUES = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 2.5, "a", "A", "", "1", b"a"]))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    width = draw(st.integers(1, 4))
    return Table(width, draw(st.lists(st.tuples(*[VALUES] * width), max_size=8)))


@given(tables())
def test_a_result_equals_itself(table: Table) -> None:
    assert same([unordered(table)], [table])
    assert same([in_order(table)], [table])


@given(tables(), st.randoms(use_true_random=False))
def test_row_order_is_free_without_order_by(table: Table, rng: random.Random) -> None:
    rows = list(table.rows)
    rng.shuffle(rows)
    assert same([unordered(table)], [Table(table.width, rows)])


@given(tables(), st.randoms(use_true_random=False))
def test_columns_are_matched_by_content(table: Table, rng: random.Random) -> None:
    places = list(range(table.width))
    rng.shuffle(places)
    moved = Table(table.width, [tuple(row[i] for i in places) for row in table.rows])
    assert same([in_order(table)], [moved])


@given(tables(), st.data())
def test_changed_value_is_detected(table: Table, data: st.DataObject) -> None:
    if not table.rows:
        return
    at, column = data.draw(st.integers(0, len(table.rows) - 1)), data.draw(st.integers(0, table.width - 1))
    rows = [list(row) for row in table.rows]
    rows[at][column] = "never drawn"
    assert not same([unordered(table)], [Table(table.width, [tuple(row) for row in rows])])


@given(tables())
def test_missing_or_duplicate_row_is_detected(table: Table) -> None:
    if table.rows:
        assert not same([unordered(table)], [Table(table.width, table.rows[1:])])
        assert not same([unordered(table)], [Table(table.width, [*table.rows, table.rows[0]])])


@given(st.lists(VALUES, min_size=2, max_size=6, unique_by=lambda v: (type(v), v)))
def test_row_order_matters_with_order_by(column: list[Row]) -> None:
    rows = [(value,) for value in column]
    if rows[0] != rows[-1]:
        assert not same([in_order(Table(1, rows))], [Table(1, [rows[-1], *rows[1:-1], rows[0]])])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=8), st.randoms(use_true_random=False)
)
def test_order_is_free_among_ties(pairs: list[tuple[int, int]], rng: random.Random) -> None:
    pairs.sort(key=lambda pair: pair[0])
    keys: list[Row] = [(key,) for key, _ in pairs]
    expected = grouped(Table(1, [(value,) for _, value in pairs]), keys, 0, None)
    shuffled = sorted(rng.sample(pairs, len(pairs)), key=lambda pair: pair[0])
    assert same([expected], [Table(1, [(value,) for _, value in shuffled])])


@given(tables(), st.sampled_from([1e-13, -1e-13]))
def test_floats_are_equal_within_tolerance(table: Table, error: float) -> None:
    rows = [tuple(v * (1 + error) if isinstance(v, float) else v for v in row) for row in table.rows]
    assert same([unordered(table)], [Table(table.width, rows)])


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (1e300, 1e300 * (1 + 1e-12), True),
        (1e-20, 0, True),
        (1, 1.001, False),
        (1, "1", False),
        ("a", "A", False),
        ("a", "a ", False),
        ("a", b"a", False),
        (None, None, True),
        (None, 0, False),
        (None, "", False),
        (2**53, 2**53 + 1, False),
        (10**12, 10**12 + 1, False),
        (float("inf"), float("inf"), True),
        (float("inf"), 1e308, False),
    ],
)
def test_value_equality(gold: object, answer: object, equal: bool) -> None:
    assert same([unordered(Table(1, [(gold,)]))], [Table(1, [(answer,)])]) is equal  # type: ignore[arg-type]


def test_limit_allows_any_of_the_ties_at_its_edge() -> None:
    table, keys = Table(1, [("a",), ("b",), ("c",), ("d",)]), [(1,), (2,), (2,), (3,)]
    expected = grouped(table, keys, 0, 2)
    assert same([expected], [Table(1, [("a",), ("b",)])])
    assert same([expected], [Table(1, [("a",), ("c",)])])
    assert not same([expected], [Table(1, [("a",), ("d",)])])
    assert not same([expected], [Table(1, [("b",), ("a",)])])
    assert same([grouped(table, keys, 2, 2)], [Table(1, [("b",), ("d",)])])


def test_empty_results_differ_by_column_count() -> None:
    assert same([unordered(Table(2, []))], [Table(2, [])])
    assert not same([unordered(Table(2, []))], [Table(1, [])])


def test_column_assignment_is_common_to_all_databases() -> None:
    first, second = Table(2, [(1, 2)]), Table(2, [(3, 4)])
    assert same([unordered(first)], [Table(2, [(2, 1)])])
    assert not same([unordered(first), unordered(second)], [Table(2, [(2, 1)]), second])


def test_columns_are_not_matched_independently() -> None:
    gold = Table(2, [(1, 1), (2, 2)])
    assert not same([unordered(gold)], [Table(2, [(1, 2), (2, 1)])])


def test_many_boolean_columns_are_compared_in_two_seconds() -> None:
    rng = random.Random(0)
    rows = [tuple(rng.randrange(2) for _ in range(12)) for _ in range(40)]
    places = list(range(12))
    rng.shuffle(places)
    started = time.process_time()
    assert same([unordered(Table(12, rows))], [Table(12, [tuple(row[i] for i in places) for row in rows])])
    broken = [tuple(1 - v for v in row) if n == 7 else row for n, row in enumerate(rows)]
    assert not same([unordered(Table(12, rows))], [Table(12, broken)])
    assert time.process_time() - started < 2


@settings(max_examples=30)
@given(tables())
def test_difference_counts_extra_rows(table: Table) -> None:
    text = difference(unordered(table), Table(table.width, [*table.rows, ("new",) * table.width])).text()
    assert text == "wrong rows: 0 missing, 1 extra"


def test_difference_reports_wrong_order() -> None:
    table = Table(1, [(1,), (2,)])
    assert difference(in_order(table), Table(1, [(2,), (1,)])).text() == "wrong order"
    assert difference(in_order(table), Table(2, [(2, 1)])).text() == "wrong columns: 2 instead of 1"


def test_difference_counts_rows_beyond_limit_as_extra() -> None:
    # ORDER BY age DESC LIMIT 1 with a tie, against all that are oldest.
    oldest = Table(1, [("a",), ("b",), ("c",)])
    expected = grouped(oldest, [(9,), (9,), (5,)], 0, 1)
    assert difference(expected, Table(1, [("a",), ("b",)])).text() == "wrong rows: 0 missing, 1 extra"
    assert difference(expected, Table(1, [("a",), ("b",), ("z",)])).text() == "wrong rows: 0 missing, 2 extra"
    assert difference(expected, Table(1, [("z",)])).text() == "wrong rows: 1 missing, 1 extra"
    assert difference(expected, Table(1, [])).text() == "wrong rows: 1 missing, 0 extra"


@given(tables(), st.data())
def test_columns_only_needs_several_columns_and_equal_row_counts(table: Table, data: st.DataObject) -> None:
    rows = st.lists(st.tuples(*[VALUES] * table.width), max_size=8)
    answer = Table(table.width, data.draw(rows))
    take = data.draw(st.integers(0, len(table.rows)))
    expected = Expected(table.width, (Segment(table.rows, take),))
    if same([expected], [answer]):
        return
    found = difference(expected, answer)
    assert found.extra - found.missing == len(answer.rows) - take
    if found.columns_only:
        assert table.width > 1
        assert len(answer.rows) == take


def test_difference_reports_columns_in_wrong_rows() -> None:
    gold = unordered(Table(2, [(1, "a"), (2, "b")]))
    words = "right columns, put together in wrong rows"
    assert difference(gold, Table(2, [(1, "b"), (2, "a")])).text() == words
    assert difference(gold, Table(2, [(1, "b"), (3, "a")])).text() == "wrong rows: 2 missing, 2 extra"
    assert difference(gold, Table(2, [(1, "b")])).text() == "wrong rows: 2 missing, 1 extra"


def test_segment_takes_only_its_own_rows() -> None:
    expected = Expected(1, (Segment([(1,), (2,)], 1), Segment([(3,)], 1)))
    assert same([expected], [Table(1, [(2,), (3,)])])
    assert not same([expected], [Table(1, [(1,), (2,)])])
