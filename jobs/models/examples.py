"""Rows -> token ids with a mark where learning starts. Pure; the tokenizer is the only thing asked.

The prompt's tokens come from `prompt_tokens` alone, in training and in answering, so that a
model meets at work exactly the bytes it was taught with.
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
    """One row as token ids: prompt, answer, end-of-sequence. `learn_from` is the first token that is learnt.

    ::

        tokens      P P P P A A A E      P prompt, A answer, E end of sequence
        learnt      . . . . x x x x      loss: answer            (learn_from = 4)
        learnt      . x x x x x x x      loss: prompt-and-answer (learn_from = 1; nothing predicts the first)
    """

    tokens: tuple[int, ...]
    learn_from: int

    @property
    def learnt_tokens(self) -> int:
        return len(self.tokens) - self.learn_from


@dataclass(frozen=True)
class Tokenised:
    """The examples of one part, and how many of its rows were too long to be among them."""

    examples: tuple[Example, ...]
    too_long_rows: int

    @property
    def tokens(self) -> int:
        return sum(len(example.tokens) for example in self.examples)


def prompt_tokens(row: Row, tokenizer: Any, style: Literal["chat", "plain"]) -> list[int]:
    """Token ids of what the model reads before it answers `row`.

    A chat template writes its own special tokens; a plain prompt gets what the tokenizer puts in
    front of a text (a beginning-of-sequence token, for Llama), never what it may put behind.
    """
    text = prompt_text(row, tokenizer, style)
    if style == "chat":
        ids = tokenizer.encode(text, add_special_tokens=False)
    else:
        ids = tokenizer.encode(text, add_special_tokens=True)
        if ids and ids[-1] == tokenizer.eos_token_id:
            ids = ids[:-1]
    return [int(token) for token in ids]


def shared_tokens(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all of `texts` begin with."""
    columns = zip(*texts, strict=False)  # ends with the shortest
    return next(
        (n for n, column in enumerate(columns) if len(set(column)) > 1), min(map(len, texts), default=0)
    )


def example(row: Row, tokenizer: Any, style: Literal["chat", "plain"], loss: str) -> Example:
    """One row as an Example. The gold answer is tokenised by itself, as the model will produce it."""
    prompt = prompt_tokens(row, tokenizer, style)
    answer = [int(token) for token in tokenizer.encode(row.gold, add_special_tokens=False)]
    learn_from = len(prompt) if loss == "answer" else 1
    # The first token has nothing before it that could predict it.
    return Example((*prompt, *answer, int(tokenizer.eos_token_id)), max(learn_from, 1))


def tokenise(
    rows: Iterable[Row], tokenizer: Any, *, style: Literal["chat", "plain"], loss: str, limit_tokens: int
) -> Tokenised:
    """Every row as an Example. A row longer than `limit_tokens` is left out whole and counted.

    Cutting it would teach a broken question or an answer without its end; leaving it out
    teaches nothing wrong. Raises Failure(UNSUPPORTED) where the tokenizer has no end of sequence.
    """
    if tokenizer.eos_token_id is None:
        raise Failure(Reason.UNSUPPORTED, "the model's tokenizer has no end-of-sequence token to learn")
    examples = [example(row, tokenizer, style, loss) for row in rows]
    kept = tuple(item for item in examples if len(item.tokens) <= limit_tokens)
    return Tokenised(kept, len(examples) - len(kept))
