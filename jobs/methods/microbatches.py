"""Examples -> micro-batches of a bounded number of tokens, spread evenly over workers. Pure.

`training.packing` chooses one of two layouts. Both give the loss that each example has alone.

packed: one row holds several examples, one after the other. Positions restart at each example, and no
attention mask is passed: from the restarts the model derives that no token attends to another example
(a mask of ones would switch that off)::

    tokens      a a a a b b b c c
    positions   0 1 2 3 0 1 2 0 1
    targets     . a a . . b . c .      the next token; '.' is not trained

padded: one example per row, padded on the right. Attention is causal, so no trained token attends to
padding, and again no mask is needed. With `share_prefix`, the examples' common prefix (a task's
instructions, about half of a text-to-SQL prompt) is computed once, and every row attends to its keys
and values::

    prefix      i i i                  positions 0 1 2
    tokens      a a a a                positions 3 4 5 6
                b b b 0
    targets     . a a .
                . b . .
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.models.examples import Example, common_prefix_tokens

#: The target of an untrained position; torch's `ignore_index` of cross-entropy.
IGNORE_INDEX = -100


@dataclass(frozen=True)
class Microbatch:
    """The input of one forward pass: rows x columns of ints, and the `prefix` in front of every row.

    `real_tokens` is the sum of the examples' lengths: no padding, a common prefix once per example.
    """

    tokens: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[int, ...], ...]
    real_tokens: int
    trained_tokens: int
    #: Tokens in front of every row, computed once: positions from 0, none of them trained.
    prefix: tuple[int, ...] = ()


#: Trains nothing: keeps workers in step if there are fewer examples than workers.
EMPTY = Microbatch(((0,),), ((0,),), ((IGNORE_INDEX,),), 0, 0)


def targets(example: Example) -> tuple[int, ...]:
    """The next token at each position, or IGNORE_INDEX; the last position has no next token."""
    count = len(example.tokens)
    return tuple(
        example.tokens[position + 1] if example.loss_start <= position + 1 < count else IGNORE_INDEX
        for position in range(count)
    )


def microbatches(
    examples: Sequence[Example], *, limit_tokens: int, packing: bool, workers: int, share_prefix: bool = False
) -> list[list[Microbatch]]:
    """Micro-batches per worker, the same number for each, each of at most `limit_tokens` tokens.

    Padding counts towards the limit. No example may be longer than the limit.
    `share_prefix` applies to padded rows only.
    """
    if packing:
        built = [
            _packed(group) if group else EMPTY for group in _packed_groups(examples, limit_tokens, workers)
        ]
    else:
        prefix = _prefix_tokens(examples) if share_prefix else 0
        built = [
            _padded(group, prefix if len(group) > 1 else 0) if group else EMPTY
            for group in _padded_groups(examples, limit_tokens, workers, prefix)
        ]
    return [built[worker::workers] for worker in range(workers)]


def _prefix_tokens(examples: Sequence[Example]) -> int:
    """Length of the common prefix. It excludes a prompt's last token, which predicts a trained one."""
    common = common_prefix_tokens([example.tokens for example in examples])
    return min([common, *(example.loss_start - 1 for example in examples)])


def _packed_groups(examples: Sequence[Example], limit_tokens: int, workers: int) -> list[list[Example]]:
    """The fewest groups that hold all examples, in a multiple of `workers`, filled evenly.

    Longest example first, each into the group with the fewest tokens. If that group has no room, none
    has, and there must be more groups.
    """
    ordered = sorted(examples, key=lambda example: -len(example.tokens))
    count = _round_up(-(-sum(len(example.tokens) for example in examples) // limit_tokens), workers)
    while True:
        groups: list[list[Example]] = [[] for _ in range(count)]
        filled = [0] * count
        for example in ordered:
            index = filled.index(min(filled))
            groups[index].append(example)
            filled[index] += len(example.tokens)
        if max(filled, default=0) <= limit_tokens or count >= len(examples):
            return groups
        count += workers


def _padded_groups(
    examples: Sequence[Example], limit_tokens: int, workers: int, prefix: int
) -> list[list[Example]]:
    """Examples of similar length; `prefix` plus rows times the longest rest stays within the limit."""
    ordered = sorted(examples, key=lambda example: -len(example.tokens))
    groups: list[list[Example]] = []
    for example in ordered:
        if groups and prefix + (len(groups[-1][0].tokens) - prefix) * (len(groups[-1]) + 1) <= limit_tokens:
            groups[-1].append(example)
        else:
            groups.append([example])
    count = _round_up(len(groups), workers)
    while len(groups) < count and (divisible := [g for g in groups if len(g) > 1]):
        # Two half-full passes on two workers are faster than one while the other waits.
        largest = max(divisible, key=len)
        half = len(largest) // 2
        groups.append(largest[half:])
        del largest[half:]
    return groups + [[] for _ in range(count - len(groups))]


def _round_up(count: int, workers: int) -> int:
    return max(-(-count // workers), 1) * workers


def _packed(group: list[Example]) -> Microbatch:
    return Microbatch(
        tokens=(tuple(token for example in group for token in example.tokens),),
        positions=(tuple(position for example in group for position in range(len(example.tokens))),),
        targets=(tuple(target for example in group for target in targets(example)),),
        real_tokens=sum(len(example.tokens) for example in group),
        trained_tokens=sum(example.trained_tokens for example in group),
    )


def _padded(group: list[Example], prefix: int) -> Microbatch:
    width = max(len(example.tokens) for example in group)
    return Microbatch(
        tokens=tuple(example.tokens[prefix:] + (0,) * (width - len(example.tokens)) for example in group),
        positions=tuple(tuple(range(prefix, width)) for _ in group),
        targets=tuple(
            targets(example)[prefix:] + (IGNORE_INDEX,) * (width - len(example.tokens)) for example in group
        ),
        real_tokens=sum(len(example.tokens) for example in group),
        trained_tokens=sum(example.trained_tokens for example in group),
        prefix=group[0].tokens[:prefix],
    )
