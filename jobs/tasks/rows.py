"""The row: one question with its gold answer, as `prepare` writes it and later stages read it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One question in chat form; the last message is the assistant's and holds the gold answer.

    `fields` is what the task's prompts and scorers need besides the messages. `prepare` adds the task's name,
    `fields["task"]`. Paths in it are relative to the directory from which the row was read.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def gold(self) -> str:
        return self.messages[-1]["content"]

    @property
    def prompt_messages(self) -> list[dict[str, str]]:
        """The conversation before the answer."""
        return [dict(message) for message in self.messages[:-1]]

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "messages": [dict(m) for m in self.messages], "fields": self.fields}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Row:
        return cls(value["id"], tuple(value["messages"]), value.get("fields", {}))


@dataclass(frozen=True)
class Parts:
    """The rows of a run, and notes on how the parts came about."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    notes: tuple[str, ...] = ()

    def items(self) -> tuple[tuple[str, list[Row]], ...]:
        return (("train", self.train), ("validation", self.validation), ("test", self.test))


def shuffled(count: int, seed: int, salt: str) -> list[int]:
    """The positions 0 … count-1 in the order in which sampling takes them."""
    positions = list(range(count))
    random.Random(f"tuneyard {salt} {seed}").shuffle(positions)
    return positions


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSONL file that `prepare` wrote."""
    with path.open(encoding="utf-8") as stream:
        return [Row.from_json(json.loads(line)) for line in stream]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """One row a line, UTF-8, in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
