"""Examples -> micro-batches of a bounded number of tokens, spread evenly over workers. Pure.

Two layouts, chosen by `training.packing`; both give the loss that each example has alone.

packed: one row holds several examples, one behind the other; positions restart at each, and
no attention mask is passed: the model derives from the restarts that no token sees another
example's (a mask of ones would switch that off)::

    tokens      a a a a b b b c c
    positions   0 1 2 3 0 1 2 0 1
    targets     . a a . . b . c .      the token to predict next; '.' is not learnt

padded: one row an example, padding behind it. Attention is causal, so no token that counts
sees padding, and again no mask is needed. What all examples begin with (a task's instructions, about
half of a text-to-SQL prompt) is computed once for all rows where `share` allows it, and its keys and
values are what every row attends to::

    shared      i i i                  positions 0 1 2
    tokens      a a a a                positions 3 4 5 6
                b b b 0
    targets     . a a .
                . b . .
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.models.examples import Example, shared_tokens

#: The target of a position that is not learnt (what cross-entropy ignores).
IGNORED = -100


@dataclass(frozen=True)
class Microbatch:
    """What one forward pass computes: rows x columns of ints, all rows equally long, behind what they `shared`.

    `real_tokens` counts what all examples hold, what they share as often as they hold it.
    """

    tokens: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[int, ...], ...]
    real_tokens: int
    learnt_tokens: int
    #: Tokens in front of every row, computed once: positions from 0, nothing of them learnt.
    shared: tuple[int, ...] = ()


#: A pass that computes nothing: keeps workers in step where there are fewer examples than workers.
EMPTY = Microbatch(((0,),), ((0,),), ((IGNORED,),), 0, 0)


def targets(example: Example) -> tuple[int, ...]:
    """For each position the token to predict next, or IGNORED; the last position predicts nothing."""
    count = len(example.tokens)
    return tuple(
        example.tokens[position + 1] if example.learn_from <= position + 1 < count else IGNORED
        for position in range(count)
    )


def microbatches(
    examples: Sequence[Example], *, limit_tokens: int, packing: bool, workers: int, share: bool = False
) -> list[list[Microbatch]]:
    """For each worker its micro-batches, equally many for all, each of at most `limit_tokens` tokens.

    Padding counts towards the limit. An example longer than the limit is the caller's mistake.
    `share` lets padded rows share what they begin with.
    """
    if packing:
        built = [
            _packed(group) if group else EMPTY for group in _packed_groups(examples, limit_tokens, workers)
        ]
    else:
        shared = _shared_tokens(examples) if share else 0
        built = [
            _padded(group, shared if len(group) > 1 else 0) if group else EMPTY
            for group in _padded_groups(examples, limit_tokens, workers, shared)
        ]
    return [built[worker::workers] for worker in range(workers)]


def _shared_tokens(examples: Sequence[Example]) -> int:
    """How many tokens all examples begin with, without the last of a prompt: it predicts what is learnt."""
    common = shared_tokens([example.tokens for example in examples])
    return min([common, *(example.learn_from - 1 for example in examples)])


def _packed_groups(examples: Sequence[Example], limit_tokens: int, workers: int) -> list[list[Example]]:
    """As few groups as hold everything, a multiple of `workers`, filled evenly.

    Longest first, each into the group with the fewest tokens; where that one has no room no
    other has, and there must be more groups.
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
    examples: Sequence[Example], limit_tokens: int, workers: int, shared: int
) -> list[list[Example]]:
    """Runs of examples of similar length; `shared` and a run's longest rest times its rows stay within the limit."""
    ordered = sorted(examples, key=lambda example: -len(example.tokens))
    groups: list[list[Example]] = []
    for example in ordered:
        if groups and shared + (len(groups[-1][0].tokens) - shared) * (len(groups[-1]) + 1) <= limit_tokens:
            groups[-1].append(example)
        else:
            groups.append([example])
    count = _round_up(len(groups), workers)
    while len(groups) < count and (divisible := [g for g in groups if len(g) > 1]):
        # Better two half-full passes on two workers than one waiting for the other.
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
        learnt_tokens=sum(example.learnt_tokens for example in group),
    )


def _padded(group: list[Example], shared: int) -> Microbatch:
    width = max(len(example.tokens) for example in group)
    return Microbatch(
        tokens=tuple(example.tokens[shared:] + (0,) * (width - len(example.tokens)) for example in group),
        positions=tuple(tuple(range(shared, width)) for _ in group),
        targets=tuple(
            targets(example)[shared:] + (IGNORED,) * (width - len(example.tokens)) for example in group
        ),
        real_tokens=sum(len(example.tokens) for example in group),
        learnt_tokens=sum(example.learnt_tokens for example in group),
        shared=group[0].tokens[:shared],
    )
