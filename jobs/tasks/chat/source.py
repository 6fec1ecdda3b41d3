"""Source `chat`: a user's own train.jsonl, validation.jsonl and test.jsonl of chat rows.

A row is `{"messages": [{"role": …, "content": …}, …]}`, optionally with an `id`; other keys are
kept for scorers of the user's own. Rows are checked as a fine-tuning service checks an upload
(docs/data.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.tasks.chat.prompt import ROLES, make_row
from jobs.tasks.contract import Source
from jobs.tasks.reading import Problems, json_lines, require
from jobs.tasks.rows import Row

NAME = "chat"
FILES = {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
#: Keys that `make_row` and other sources set; a user's row must not have them.
_RESERVED = ("task", "database")


def read(directory: Path, part: str, problems: Problems) -> list[Row]:
    """Rows in the file's order; a row without an `id` is called `<part>-00001` by its position."""
    path = require(NAME, directory, FILES[part])[0]
    rows: list[Row] = []
    ids: dict[str, int] = {}
    found = 0
    before = len(problems.lines)
    for number, value in json_lines(path, problems):
        found += 1
        where = f"{path.name}:{number}"
        wrong = _row_problems(value)
        for what in wrong:
            problems.add(where, what)
        if wrong:
            continue
        row_id = str(value.get("id", f"{part}-{found:05}"))
        if row_id in ids:
            problems.add(where, f"id: '{row_id}' is the id of line {ids[row_id]} too")
        ids[row_id] = number
        extra = {key: item for key, item in value.items() if key not in ("id", "messages", *_RESERVED)}
        rows.append(make_row(row_id, value["messages"], extra))
    if not found and len(problems.lines) == before:
        problems.add(path.name, "has no rows")
    return rows


def _row_problems(value: Any) -> list[str]:
    """The problems of one row, each with its path inside the row."""
    if not isinstance(value, dict):
        return ["not an object with messages"]
    wrong = []
    if "id" in value and (isinstance(value["id"], bool) or not isinstance(value["id"], str | int)):
        wrong.append("id: must be text or a whole number")
    wrong += [f"{key}: this key is not the user's to set" for key in _RESERVED if key in value]
    messages = value.get("messages")
    if "messages" not in value:
        return [*wrong, "messages: missing"]
    if not isinstance(messages, list) or not messages:
        return [*wrong, "messages: must be a list with at least one message"]
    for index, message in enumerate(messages):
        wrong += [f"messages[{index}]{what}" for what in _message_problems(message)]
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if "assistant" not in roles:
        wrong.append("messages: no message from the assistant")
    elif roles[-1] != "assistant":
        wrong.append("messages: the last one must be the assistant's, it is the answer")
    elif len(messages) < 2:
        wrong.append("messages: nothing comes before the answer")
    if "system" in roles[1:]:
        wrong.append("messages: a system message must be the first")
    return wrong


def _message_problems(message: Any) -> list[str]:
    if not isinstance(message, dict):
        return [": not an object with role and content"]
    wrong = []
    if "role" not in message:
        wrong.append(".role: missing")
    elif message["role"] not in ROLES:
        wrong.append(f".role: {message['role']!r} is none of {', '.join(ROLES)}")
    if "content" not in message:
        wrong.append(".content: missing")
    elif not isinstance(message["content"], str):
        wrong.append(".content: must be text")
    elif not message["content"].strip():
        wrong.append(".content: empty")
    wrong += [f".{key}: no such key" for key in message if key not in ("role", "content")]
    return wrong


SOURCES = (Source(NAME, FILES, read),)
