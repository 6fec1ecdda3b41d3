"""Micro-batches hold every example once, within the token limit, the same number for every worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.methods.microbatches import IGNORE_INDEX, Microbatch, microbatches, targets
from jobs.models.examples import Example

LIMIT_TOKENS = 64


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    """Examples whose tokens are unique, so that each can be identified."""
    lengths = draw(st.lists(st.integers(2, LIMIT_TOKENS), min_size=1, max_size=12))
    made, first = [], 1
    for length in lengths:
        made.append(Example(tuple(range(first, first + length)), draw(st.integers(1, length - 1))))
        first += length
    return made


def trained_pairs(batch: Microbatch) -> set[tuple[int, int]]:
    """(token, the token to predict after it) of every trained position."""
    return {
        (token, target)
        for token_row, target_row in zip(batch.tokens, batch.targets, strict=True)
        for token, target in zip(token_row, target_row, strict=True)
        if target != IGNORE_INDEX
    }


@given(examples(), st.booleans(), st.integers(1, 4))
def test_every_token_is_trained_once_within_the_limit(
    items: list[Example], packing: bool, workers: int
) -> None:
    shares = microbatches(items, limit_tokens=LIMIT_TOKENS, packing=packing, workers=workers)
    assert len(shares) == workers
    assert len({len(share) for share in shares}) == 1
    batches = [batch for share in shares for batch in share]
    assert all(sum(map(len, batch.tokens)) <= LIMIT_TOKENS for batch in batches)
    assert sum(batch.real_tokens for batch in batches) == sum(len(item.tokens) for item in items)
    expected = {(token - 1, token) for item in items for token in item.tokens[item.loss_start :]}
    found = [pair for batch in batches for pair in trained_pairs(batch)]
    assert len(found) == len(set(found)) == sum(batch.trained_tokens for batch in batches)
    assert set(found) == expected


@given(examples(), st.integers(0, 20), st.integers(1, 4))
def test_the_common_prefix_is_computed_once_and_nothing_else_changes(
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
    found = [pair for batch in batches for pair in trained_pairs(batch)]
    assert len(found) == len(set(found)) == len(expected)
    assert set(found) == expected
    assert sum(batch.real_tokens for batch in batches) == sum(len(item.tokens) for item in longer)


def test_the_prefix_excludes_the_token_that_predicts_the_answer() -> None:
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


def test_padding_is_never_a_target_even_if_it_is_the_end_of_sequence() -> None:
    items = [Example((5, 6, 7, 0), 1), Example((8, 0), 1)]  # 0 is both padding and end of sequence
    ((batch,),) = microbatches(items, limit_tokens=8, packing=False, workers=1)
    assert batch.targets == ((6, 7, 0, IGNORE_INDEX), (0, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX))


def test_the_end_of_sequence_is_a_target() -> None:
    assert targets(Example((5, 6, 9), 2)) == (IGNORE_INDEX, 9, IGNORE_INDEX)
