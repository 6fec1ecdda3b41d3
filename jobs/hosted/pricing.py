"""Tokens, epochs, steps and dollars of a fine-tuning job. Pure arithmetic, with the source of each rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.hosted.upload_checks import example_tokens
from launcher.costs.hosted import default_epochs

#: The study's estimate adds 3 tokens to the messages of each example; the bill added 1.
_BILLED_LESS_PER_EXAMPLE = 2

#: Rows of a batch as a share of the examples, if the service chooses. The one billed run with known steps
#: took 1,701 steps for two epochs of 5,103 examples: batches of six.
_AUTO_BATCH_SHARE = 0.0012
_MOST_BATCH_ROWS = 256


def estimated_tokens(examples: Iterable[dict[str, Any]]) -> int:
    """Tokens of one epoch by the study's rule, which the estimate before a job uses."""
    return sum(example_tokens(example) for example in examples)


def billed_tokens(examples: Iterable[dict[str, Any]]) -> int:
    """Tokens of one epoch as `trained_tokens` counts them (1 for each example instead of 3)."""
    return sum(example_tokens(example) - _BILLED_LESS_PER_EXAMPLE for example in examples)


def auto_batch_rows(examples: int) -> int:
    """Rows of a batch if the service chooses; see `_AUTO_BATCH_SHARE`."""
    return max(1, min(_MOST_BATCH_ROWS, round(_AUTO_BATCH_SHARE * examples)))


def steps(examples: int, epochs: int, batch_rows: int) -> int:
    """Optimizer steps for `epochs` passes over the examples."""
    return max(1, -(-examples * epochs // batch_rows))


def usd(tokens: float, per_million_usd: float) -> float:
    """Dollars of `tokens` at a price per million."""
    return tokens / 1e6 * per_million_usd


__all__ = ["auto_batch_rows", "billed_tokens", "default_epochs", "estimated_tokens", "steps", "usd"]
