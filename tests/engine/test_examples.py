"""Trained tokens of a row, and prompts that are the same in training and generation."""

from __future__ import annotations

from typing import Any

import pytest
from stage_harness import rows

import jobs.predict.stage
from jobs.models.examples import example, prompt_tokens, tokenize
from jobs.tasks.prompts import prompt_text
from jobs.tasks.rows import Row
from launcher.outcome import Failure, Reason

ROW = Row("a", ({"role": "user", "content": "two and two?"}, {"role": "assistant", "content": "four é"}))


def test_loss_answer_trains_the_answer_and_its_end(tokenizer: Any) -> None:
    item = example(ROW, tokenizer, "chat", "answer")
    trained = item.tokens[item.loss_start :]
    assert tokenizer.decode(trained) == "four é<|end|>"
    assert trained[-1] == tokenizer.eos_token_id


def test_loss_prompt_and_answer_trains_all_but_the_first_token(tokenizer: Any) -> None:
    item = example(ROW, tokenizer, "chat", "prompt-and-answer")
    assert item.loss_start == 1
    assert item.tokens == example(ROW, tokenizer, "chat", "answer").tokens


def test_training_and_generation_use_the_same_prompt_tokens(tokenizer: Any) -> None:
    assert vars(jobs.predict.stage)["prompt_tokens"] is prompt_tokens
    for row in rows(20):
        item = example(row, tokenizer, "chat", "answer")
        assert list(item.tokens[: item.loss_start]) == prompt_tokens(row, tokenizer, "chat")
        assert tokenizer.decode(item.tokens[: item.loss_start]) == prompt_text(row, tokenizer, "chat")


def test_too_long_rows_are_left_out_and_counted(tokenizer: Any) -> None:
    length = len(example(ROW, tokenizer, "chat", "answer").tokens)
    fits = tokenize([ROW], tokenizer, style="chat", loss="answer", limit_tokens=length)
    assert (len(fits.examples), fits.too_long_rows, fits.tokens) == (1, 0, length)
    too_long = tokenize([ROW, ROW], tokenizer, style="chat", loss="answer", limit_tokens=length - 1)
    assert (len(too_long.examples), too_long.too_long_rows) == (0, 2)


def test_a_tokenizer_without_an_end_of_sequence_is_unsupported() -> None:
    class Endless:
        eos_token_id = None

    with pytest.raises(Failure) as raised:
        tokenize([ROW], Endless(), style="chat", loss="answer", limit_tokens=100)
    assert raised.value.reason is Reason.UNSUPPORTED
