"""Rows -> token ids and the position from which tokens are trained. Pure.

Training and generation both take a prompt's tokens from `prompt_tokens`, so a model answers exactly the
prompts it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.tasks.prompts import prompt_text
from jobs.tasks.rows import Row
from launcher.outcome import Failure, Reason


@dataclass(frozen=True)
class Example:
    """One row as token ids: prompt, answer, end of sequence. `loss_start` is the first trained token.

    ::

        tokens      P P P P A A A E      P prompt, A answer, E end of sequence
        trained     . . . . x x x x      loss: answer            (loss_start = 4)
        trained     . x x x x x x x      loss: prompt-and-answer (loss_start = 1; nothing predicts the first)
    """

    tokens: tuple[int, ...]
    loss_start: int

    @property
    def trained_tokens(self) -> int:
        return len(self.tokens) - self.loss_start


@dataclass(frozen=True)
class TokenizedSplit:
    """The examples of one split, and the number of rows that were too long."""

    examples: tuple[Example, ...]
    too_long_rows: int

    @property
    def tokens(self) -> int:
        return sum(len(example.tokens) for example in self.examples)

    def summary(self) -> str:
        """One line for the log."""
        trained = sum(example.trained_tokens for example in self.examples)
        left_out = f"; {self.too_long_rows} rows too long, left out" if self.too_long_rows else ""
        return f"{len(self.examples)} rows, {self.tokens} tokens, {trained} trained{left_out}"


def prompt_tokens(row: Row, tokenizer: Any, style: Literal["chat", "plain"]) -> list[int]:
    """Token ids of the prompt of `row`.

    A chat template contains its own special tokens. A plain prompt gets the tokenizer's leading ones
    (for Llama, beginning of sequence), but no trailing end of sequence.
    """
    text = prompt_text(row, tokenizer, style)
    if style == "chat":
        ids = tokenizer.encode(text, add_special_tokens=False)
    else:
        ids = tokenizer.encode(text, add_special_tokens=True)
        if ids and ids[-1] == tokenizer.eos_token_id:
            ids = ids[:-1]
    return [int(token) for token in ids]


def common_prefix_tokens(texts: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix of token sequences."""
    columns = zip(*texts, strict=False)  # up to the shortest
    return next(
        (n for n, column in enumerate(columns) if len(set(column)) > 1), min(map(len, texts), default=0)
    )


def example(row: Row, tokenizer: Any, style: Literal["chat", "plain"], loss: str) -> Example:
    """One row as an Example. The gold answer is tokenized separately, as the model will generate it."""
    prompt = prompt_tokens(row, tokenizer, style)
    answer = [int(token) for token in tokenizer.encode(row.gold, add_special_tokens=False)]
    loss_start = len(prompt) if loss == "answer" else 1
    # Nothing predicts the first token.
    return Example((*prompt, *answer, int(tokenizer.eos_token_id)), max(loss_start, 1))


def tokenize(
    rows: Iterable[Row], tokenizer: Any, *, style: Literal["chat", "plain"], loss: str, limit_tokens: int
) -> TokenizedSplit:
    """All rows as Examples. A row longer than `limit_tokens` is left out and counted, never truncated:
    truncation would train a broken question or an answer without its end.

    Raises Failure(UNSUPPORTED) if the tokenizer has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise Failure(Reason.UNSUPPORTED, "the model's tokenizer has no end-of-sequence token")
    examples = [example(row, tokenizer, style, loss) for row in rows]
    kept = tuple(item for item in examples if len(item.tokens) <= limit_tokens)
    return TokenizedSplit(kept, len(examples) - len(kept))
