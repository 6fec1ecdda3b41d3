"""Tokens, epochs, steps and dollars of a fine-tuning job. Pure arithmetic; where each rule comes from is said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.hosted.upload_checks import example_tokens
from launcher.costs.hosted import default_epochs

#: The study's estimate counts 3 tokens for each example besides its messages; what was billed counts 1.
_BILLED_LESS_PER_EXAMPLE = 2

#: Rows of a batch as a share of the examples where the service chooses: the one billed run whose steps
#: are known took 5,103 examples twice in 1,701 steps, six at a time.
_AUTO_BATCH_SHARE = 0.0012
_MOST_BATCH_ROWS = 256


def estimated_tokens(examples: Iterable[dict[str, Any]]) -> int:
    """Tokens of one epoch by the study's rule: what the estimate before a job uses."""
    return sum(example_tokens(example) for example in examples)


def billed_tokens(examples: Iterable[dict[str, Any]]) -> int:
    """Tokens of one epoch as `trained_tokens` has counted them (each example 1 instead of 3)."""
    return sum(example_tokens(example) - _BILLED_LESS_PER_EXAMPLE for example in examples)


def auto_batch_rows(examples: int) -> int:
    """Rows of a batch where the service chooses; see `_AUTO_BATCH_SHARE`."""
    return max(1, min(_MOST_BATCH_ROWS, round(_AUTO_BATCH_SHARE * examples)))


def steps(examples: int, epochs: int, batch_rows: int) -> int:
    """Updates that show every example `epochs` times."""
    return max(1, -(-examples * epochs // batch_rows))


def usd(tokens: float, per_million_usd: float) -> float:
    """Dollars of `tokens` at a price per million."""
    return tokens / 1e6 * per_million_usd


__all__ = ["auto_batch_rows", "billed_tokens", "default_epochs", "estimated_tokens", "steps", "usd"]
