"""Conversations whose last message is the assistant's gold answer: rows and prompts."""

from __future__ import annotations

from typing import Any

from jobs.tasks.rows import Row

ROLES = ("system", "user", "assistant")


def make_row(row_id: str, messages: list[dict[str, str]], extra: dict[str, Any]) -> Row:
    """A conversation. `extra` are the other keys of the user's row, for scorers of the user's own."""
    return Row(row_id, tuple(messages), {**extra, "task": "chat"})


def plain_prompt(row: Row) -> str:
    """The conversation as headed sections, for models without chat format; the answer follows directly."""
    sections = (
        f"### {message['role'].capitalize()}:\n{message['content']}" for message in row.prompt_messages
    )
    return "\n\n".join((*sections, "### Assistant:\n"))
