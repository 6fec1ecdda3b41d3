"""Task name -> the functions that make its prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobs.tasks.chat import prompt as chat
from jobs.tasks.rows import Row
from jobs.tasks.sql import prompt as sql
from jobs.tasks.viggo import prompt as viggo
from launcher.outcome import Failure, Reason


@dataclass(frozen=True)
class Task:
    """What a task adds to a row's messages."""

    name: str
    #: The prompt for a model without chat format; the answer is appended to it as it is.
    plain_prompt: Callable[[Row], str]


TASKS = {
    "sql": Task("sql", sql.plain_prompt),
    "viggo": Task("viggo", viggo.plain_prompt),
    "chat": Task("chat", chat.plain_prompt),
}


def task(name: str) -> Task:
    """The task called `name`. Raises Failure(USAGE) where there is none."""
    if name not in TASKS:
        raise Failure(Reason.USAGE, f"no task '{name}'; there are {', '.join(TASKS)}")
    return TASKS[name]


def question_of(row: Row) -> str:
    """What is asked: the last user message, the same text that every prompt style shows."""
    for message in reversed(row.messages[:-1]):
        if message["role"] == "user":
            return message["content"]
    return row.messages[0]["content"]
