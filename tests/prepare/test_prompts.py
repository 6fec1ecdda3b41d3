"""Training and answering get the same prompt from the same function, in both styles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from jobs.tasks.chat import prompt as chat
from jobs.tasks.prompts import prompt_text
from jobs.tasks.registry import question_of, task
from jobs.tasks.rows import Row
from jobs.tasks.sql import prompt as sql
from launcher.outcome import Failure, Reason
from launcher.spec.tasks import built_in_names

ROW = sql.make_row("train-00001", question="Q?", gold="SELECT 1", context="C", schema="C", db_id="d")


@dataclass
class FakeTokenizer:
    """Renders as a template would, and remembers how it was asked."""

    chat_template: str | None = "{{ messages }}"
    asked: dict[str, Any] | None = None

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        self.asked = options
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def test_chat_style_ends_where_the_answer_begins() -> None:
    tokenizer = FakeTokenizer()
    text = prompt_text(ROW, tokenizer, "chat")
    assert text.endswith("<user>Q?<assistant>")
    assert ROW.gold not in text
    assert tokenizer.asked == {"add_generation_prompt": True, "tokenize": False}


def test_plain_style_is_the_tasks_own_prompt_and_needs_no_template() -> None:
    tokenizer = FakeTokenizer(chat_template=None)
    assert prompt_text(ROW, tokenizer, "plain") == sql.plain_prompt(ROW)


def test_plain_style_survives_the_file_format() -> None:
    again = Row.from_json(ROW.to_json())
    assert prompt_text(again, None, "plain") == prompt_text(ROW, None, "plain")


def test_a_model_without_chat_template_is_an_error_with_a_next_step() -> None:
    with pytest.raises(Failure) as caught:
        prompt_text(ROW, FakeTokenizer(chat_template=None), "chat")
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert "prompt: plain" in caught.value.next_step


def test_a_conversation_in_plain_style_has_a_heading_a_turn() -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4"},
    ]
    row = chat.make_row("a", messages, {})
    assert prompt_text(row, None, "plain") == (
        "### System:\nBe short.\n\n### User:\n1+1?\n\n### Assistant:\n2\n\n### User:\n2+2?\n\n### Assistant:\n"
    )
    assert question_of(row) == "2+2?"
    assert row.gold == "4"


def test_every_task_has_a_plain_prompt_and_an_unknown_one_is_refused() -> None:
    assert set(built_in_names()) == {"sql", "viggo", "chat"}
    with pytest.raises(Failure) as caught:
        task("poetry")
    assert caught.value.reason is Reason.USAGE
