"""Spell a word backwards: prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jobs.tasks.rows import Parts, Row
from launcher.spec.tasks import SettingValue


def make_row(row_id: str, word: str) -> Row:
    messages = (
        {"role": "user", "content": f"Spell '{word}' backwards."},
        {"role": "assistant", "content": word[::-1]},
    )
    return Row(row_id, messages, {"word": word})


def with_settings(parts: Parts, settings: Mapping[str, SettingValue]) -> Parts:
    """The questions with a hint, if the setting `hint` is on."""
    if not settings["hint"]:
        return parts
    train, validation, test = ([_with_hint(row) for row in rows] for _, rows in parts.items())
    return replace(parts, train=train, validation=validation, test=test)


def _with_hint(row: Row) -> Row:
    question, answer = row.messages
    hint = f" It has {len(row.fields['word'])} letters."
    return replace(row, messages=({**question, "content": question["content"] + hint}, answer))


def plain_prompt(row: Row) -> str:
    return f"{row.messages[0]['content']}\n"
