"""The rows of each training step: a pure function of seed and step, so a resume repeats and skips nothing."""

from __future__ import annotations

import hashlib
from functools import lru_cache


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, rows: int) -> tuple[int, ...]:
    """The order of rows 0 … `rows` - 1 in one epoch; by digest, so it depends on no library's generator."""

    def rank(row: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{row}".encode()).digest()

    return tuple(sorted(range(rows), key=rank))


def rows_of_step(seed: int, step: int, batch_rows: int, rows: int) -> list[int]:
    """Row numbers of a step (the first is 1): consecutive slices of the epochs' concatenated orders."""
    first = (step - 1) * batch_rows
    return [
        permutation(seed, position // rows, rows)[position % rows]
        for position in range(first, first + batch_rows)
    ]
