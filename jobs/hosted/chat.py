"""One chat completion: the request for a row and its answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from launcher.outcome import Failure, Reason

#: Most tokens that a chat template adds to a request (a default system prompt, a date) and to a message.
_TEMPLATE_TOKENS, _MESSAGE_TOKENS = 40, 8


@dataclass(frozen=True)
class ChatRequest:
    """The request for one row. Decoding is greedy."""

    model: str
    messages: tuple[dict[str, str], ...]
    max_tokens: int
    temperature: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The request's body."""
        return {
            "model": self.model,
            "messages": list(self.messages),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }

    @property
    def most_prompt_tokens(self) -> int:
        """Upper bound of any service's count: a token for each byte, and what a template adds."""
        return _TEMPLATE_TOKENS + sum(
            _MESSAGE_TOKENS + sum(len(value.encode()) for value in message.values())
            for message in self.messages
        )


@dataclass(frozen=True)
class Answer:
    """The answer to one row, as the row ledger and `predictions.jsonl` hold it."""

    answer: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    answer_tokens: int
    latency_s: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Answer:
        return cls(**document)

    @classmethod
    def from_completion(cls, body: Any, latency_s: float) -> Answer:
        """The answer in a chat completion. Raises Failure(NETWORK) if the body is not a chat completion."""
        try:
            choice, usage = body["choices"][0], body["usage"]
            # A refusal counts as an answer, which is wrong.
            text = choice["message"].get("content") or choice["message"].get("refusal") or ""
            return cls(
                answer=str(text),
                finish="length" if choice["finish_reason"] == "length" else "stop",
                prompt_tokens=max(0, int(usage["prompt_tokens"])),
                answer_tokens=max(0, int(usage["completion_tokens"])),
                latency_s=round(latency_s, 4),
            )
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise Failure(
                Reason.NETWORK, "the service's response is not a chat completion with usage"
            ) from None
