"""Micro-batches hold every example once, within the limit, equally many for every worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.methods.microbatches import IGNORE_INDEX, Microbatch, microbatches, targets
from jobs.methods.sampler import rows_of_step
from jobs.methods.schedule import learning_rate
from jobs.models.examples import Example
from launcher.spec.contenders import Training

LIMIT_TOKENS = 64


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    """Examples whose tokens are unique, so that they can be found again."""
    lengths = draw(st.lists(st.integers(2, LIMIT_TOKENS), min_size=1, max_size=12))
    made, first = [], 1
    for length in lengths:
        made.append(Example(tuple(range(first, first + length)), draw(st.integers(1, length - 1))))
        first += length
    return made


def learnt_pairs(batch: Microbatch) -> set[tuple[int, int]]:
    """(token, the token to predict after it) of every learnt position."""
    return {
        (token, target)
        for token_row, target_row in zip(batch.tokens, batch.targets, strict=True)
        for token, target in zip(token_row, target_row, strict=True)
        if target != IGNORE_INDEX
    }


@given(examples(), st.booleans(), st.integers(1, 4))
def test_everything_is_learnt_exactly_once_within_the_limit(
    items: list[Example], packing: bool, workers: int
) -> None:
    shares = microbatches(items, limit_tokens=LIMIT_TOKENS, packing=packing, workers=workers)
    assert len(shares) == workers
    assert len({len(share) for share in shares}) == 1
    batches = [batch for share in shares for batch in share]
    assert all(sum(map(len, batch.tokens)) <= LIMIT_TOKENS for batch in batches)
    assert sum(batch.real_tokens for batch in batches) == sum(len(item.tokens) for item in items)
    expected = {(token - 1, token) for item in items for token in item.tokens[item.loss_start :]}
    found = [pair for batch in batches for pair in learnt_pairs(batch)]
    assert len(found) == len(set(found)) == sum(batch.trained_tokens for batch in batches)
    assert set(found) == expected


@given(examples(), st.integers(0, 20), st.integers(1, 4))
def test_what_all_rows_begin_with_is_computed_once_and_nothing_else_changes(
    items: list[Example], common: int, workers: int
) -> None:
    instructions = tuple(range(-common, 0))
    longer = [Example(instructions + item.tokens, common + item.loss_start) for item in items]
    limit = LIMIT_TOKENS + common
    shares = microbatches(longer, limit_tokens=limit, packing=False, workers=workers, share_prefix=True)
    batches = [batch for share in shares for batch in share]
    for batch in batches:
        assert len(batch.prefix) + sum(map(len, batch.tokens)) <= limit
        assert len(batch.prefix) >= common or len(batch.tokens) == 1
        first = {positions[0] for positions in batch.positions}
        assert first == {len(batch.prefix)}
    expected = {(token - 1, token) for item in items for token in item.tokens[item.loss_start :]}
    found = [pair for batch in batches for pair in learnt_pairs(batch)]
    assert len(found) == len(set(found)) == len(expected)
    assert set(found) == expected
    assert sum(batch.real_tokens for batch in batches) == sum(len(item.tokens) for item in longer)


def test_the_token_that_predicts_the_answer_is_never_shared() -> None:
    items = [Example((1, 2, 3, 7), 3), Example((1, 2, 3, 8), 3)]
    ((batch,),) = microbatches(items, limit_tokens=16, packing=False, workers=1, share_prefix=True)
    assert batch.prefix == (1, 2)
    assert batch.tokens == ((3, 7), (3, 8))
    assert batch.targets == ((7, IGNORE_INDEX), (8, IGNORE_INDEX))


def test_positions_restart_at_every_packed_example() -> None:
    items = [Example((1, 2, 3), 1), Example((4, 5), 1)]
    ((batch,),) = microbatches(items, limit_tokens=8, packing=True, workers=1)
    assert batch.positions == ((0, 1, 2, 0, 1),)
    assert batch.targets == ((2, 3, IGNORE_INDEX, 5, IGNORE_INDEX),)


def test_padding_is_never_learnt_even_where_it_is_the_end_of_sequence() -> None:
    items = [Example((5, 6, 7, 0), 1), Example((8, 0), 1)]  # 0 is both padding and end of sequence
    ((batch,),) = microbatches(items, limit_tokens=8, packing=False, workers=1)
    assert batch.targets == ((6, 7, 0, IGNORE_INDEX), (0, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX))


def test_the_end_of_sequence_is_a_target() -> None:
    assert targets(Example((5, 6, 9), 2)) == (IGNORE_INDEX, 9, IGNORE_INDEX)


@given(st.integers(0, 5), st.integers(1, 30), st.integers(1, 7))
def test_each_epoch_visits_every_row_once_whatever_the_batch(seed: int, rows: int, batch_rows: int) -> None:
    steps = -(-rows // batch_rows)
    visited = [row for step in range(1, steps + 1) for row in rows_of_step(seed, step, batch_rows, rows)]
    assert sorted(visited[:rows]) == list(range(rows))


def test_the_order_is_the_same_on_any_machine() -> None:
    assert rows_of_step(seed=1, step=2, batch_rows=4, rows=6) == [4, 3, 3, 2]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_warms_up_to_its_peak_and_decays_to_almost_nothing(schedule: str) -> None:
    training = Training(steps=20, warmup_steps=4, learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    rates = [learning_rate(training, step) for step in range(1, 21)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_a_constant_rate_stays_and_no_warmup_starts_at_the_peak() -> None:
    training = Training(steps=3, warmup_steps=0, learning_rate=0.1, schedule="constant")
    assert [learning_rate(training, step) for step in (1, 2, 3)] == [0.1, 0.1, 0.1]
