"""Divides prompts into batches. Pure: the same rows and settings give the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, and its row number in `test.jsonl`."""

    row: int
    tokens: tuple[int, ...]


def batches(prompts: Sequence[Prompt], batch_rows: int) -> list[list[Prompt]]:
    """Batches of the prompts ordered by length, longest first, then by row number.

    Similar lengths need little padding, and a batch that does not fit in memory fails first.
    """
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.tokens), prompt.row))
    return [ordered[start : start + batch_rows] for start in range(0, len(ordered), batch_rows)]
