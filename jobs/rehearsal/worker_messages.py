"""Messages between the server and the process that generates answers, as JSON lines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class WorkerSettings:
    """The base model that a process loads, and how."""

    model: str
    threads: int
    device: str
    dtype: str


@dataclass(frozen=True)
class GenerationRequest:
    """One batch; `adapter` None: answers of the base model."""

    id: int
    adapter: str | None
    max_new_tokens: int
    conversations: list[Conversation]


@dataclass(frozen=True)
class GeneratedAnswer:
    """The answer to one conversation."""

    text: str
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class TooLong:
    """A conversation of `too_long` tokens, which exceed the model's context of `limit` tokens."""

    too_long: int
    limit: int


Generated = GeneratedAnswer | TooLong


@dataclass(frozen=True)
class GenerationReply:
    """The answers to a batch in its order, or the type of the error that prevented them."""

    id: int
    answers: tuple[Generated, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        if self.error is not None:
            return {"id": self.id, "error": self.error}
        return {"id": self.id, "answers": [asdict(answer) for answer in self.answers]}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> GenerationReply:
        answers = document.get("answers", ())
        return cls(
            document["id"],
            tuple(TooLong(**one) if "too_long" in one else GeneratedAnswer(**one) for one in answers),
            document.get("error"),
        )
