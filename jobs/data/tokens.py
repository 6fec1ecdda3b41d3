"""Token counts without a network: cl100k_base, the tokenizer of the study's hosted model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import bpe_openai

from jobs.tasks.rows import Row

ENCODING = "cl100k_base"


@cache
def _encoding() -> bpe_openai.Encoding:
    return bpe_openai.get_encoding(ENCODING)


@lru_cache(maxsize=100_000)
def count(text: str) -> int:
    """Tokens of a text; what looks like a special token in it is plain text."""
    return len(_encoding().encode_ordinary(text))


def training_tokens(row: Row) -> int:
    """What OpenAI counts for one example of one epoch: each message 3 and its values, the example 3 more."""
    return 3 + sum(3 + sum(count(value) for value in message.values()) for message in row.messages)


def prompt_tokens(row: Row) -> int:
    """Tokens of the contents before the answer."""
    return sum(count(message["content"]) for message in row.messages[:-1])


def answer_tokens(row: Row) -> int:
    """Tokens of the gold answer."""
    return count(row.gold)


def statistics(counts: Sequence[int]) -> dict[str, float | int]:
    """Mean, median, 95th percentile (nearest rank), maximum and total of token counts; {} for none."""
    if not counts:
        return {}
    ordered = sorted(counts)

    def rank(share: float) -> int:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    mean = round(sum(ordered) / len(ordered), 2)
    return {"mean": mean, "p50": rank(0.5), "p95": rank(0.95), "max": ordered[-1], "total": sum(ordered)}
