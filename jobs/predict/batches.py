"""Which rows are answered together. Pure: the same rows and settings give the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A test row's number in `test.jsonl` and what the model reads, as token ids."""

    row: int
    tokens: tuple[int, ...]


def batches(prompts: Sequence[Prompt], batch_rows: int) -> list[list[Prompt]]:
    """Consecutive pieces of the prompts ordered by length, longest first, equal lengths by row number.

    Similar lengths need little padding, and what does not fit in memory fails in the first batch.
    """
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.tokens), prompt.row))
    return [ordered[start : start + batch_rows] for start in range(0, len(ordered), batch_rows)]
