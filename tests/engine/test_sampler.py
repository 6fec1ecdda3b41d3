"""The sampler is a pure function of seed and step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.methods.sampler import rows_of_step


@given(st.integers(0, 5), st.integers(1, 30), st.integers(1, 7))
def test_each_epoch_visits_every_row_once(seed: int, rows: int, batch_rows: int) -> None:
    steps = -(-rows // batch_rows)
    visited = [row for step in range(1, steps + 1) for row in rows_of_step(seed, step, batch_rows, rows)]
    assert sorted(visited[:rows]) == list(range(rows))


def test_row_order_is_the_same_on_any_machine() -> None:
    assert rows_of_step(seed=1, step=2, batch_rows=4, rows=6) == [4, 3, 3, 2]
