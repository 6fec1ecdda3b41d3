"""What is wrong with an upload, all of it at once, with line numbers. Pure.

The first seven checks are those of the study's notebook, under its names; the others are what a
service says only after a job has started, or never. The rehearsal server makes the same checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs.data import tokens
from launcher.system.text import printable

ROLES = ("system", "user", "assistant", "developer", "function", "tool")
_KEYS = ("role", "content", "name", "function_call", "tool_calls", "tool_call_id", "weight", "refusal")
MINIMUM_EXAMPLES = 10
#: Tokens of one example that a service takes, where its model is not listed.
DEFAULT_LIMIT_TOKENS = 16_385
LIMIT_TOKENS = {
    "gpt-3.5-turbo-0613": 4_096,
    "gpt-3.5-turbo-1106": 16_385,
    "gpt-3.5-turbo-0125": 16_385,
    "gpt-4o": 65_536,
    "gpt-4o-mini": 65_536,
    "gpt-4.1": 65_536,
    "gpt-4.1-mini": 65_536,
    "gpt-4.1-nano": 65_536,
}
MAXIMUM_BYTES = 512 << 20


@dataclass(frozen=True)
class Problem:
    """One fault. `line` counts from 1, None where the file as a whole is meant."""

    file: str
    line: int | None
    code: str
    what: str
    #: A service would take the file all the same: worth saying, no reason to stop.
    warning: bool = False

    def text(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.code}: {self.what}"


@dataclass
class Upload:
    """One file as it was read: its examples with their line numbers, and what is wrong."""

    name: str
    examples: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, line: int | None, code: str, what: str, *, warning: bool = False) -> None:
        self.problems.append(Problem(self.name, line, code, what, warning))

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if not problem.warning]

    @property
    def messages(self) -> int:
        return sum(len(example["messages"]) for _, example in self.examples)


def limit_tokens(model: str) -> int:
    """Tokens one example may have for `model`; dated names take their family's."""
    for name in sorted(LIMIT_TOKENS, key=len, reverse=True):
        if model == name or model.startswith(f"{name}-"):
            return LIMIT_TOKENS[name]
    return DEFAULT_LIMIT_TOKENS


def check(
    training: bytes,
    validation: bytes = b"",
    *,
    limit: int = DEFAULT_LIMIT_TOKENS,
    minimum_examples: int = MINIMUM_EXAMPLES,
) -> tuple[Upload, Upload]:
    """Both files, read and judged: every problem of either stands in its `problems`, in the file's order."""
    read = (_read("train.jsonl", training, limit), _read("validation.jsonl", validation, limit))
    first = read[0]
    found = len(first.examples)
    if found < minimum_examples:
        first.wrong(
            None, "too_few_examples", f"{found} usable examples, at least {minimum_examples} are needed"
        )
    for upload in read:
        _duplicates(upload)
    known = {_fingerprint(example): line for line, example in first.examples}
    for line, example in read[1].examples:
        if (other := known.get(_fingerprint(example))) is not None:
            read[1].wrong(
                line, "validation_overlap", f"is line {other} of the training file too", warning=True
            )
    for upload in read:
        upload.problems.sort(key=lambda problem: problem.line or 0)
    return read


def _read(name: str, data: bytes, limit: int) -> Upload:
    upload = Upload(name)
    if len(data) > MAXIMUM_BYTES:
        upload.wrong(None, "too_large", f"{len(data)} bytes, at most {MAXIMUM_BYTES} are taken")
        return upload
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            if line or number <= data.count(b"\n"):
                upload.wrong(number, "empty_line", "nothing stands here")
            continue
        before = len(upload.problems)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            upload.wrong(number, "invalid_json", "not JSON in UTF-8")
            continue
        _example(upload, number, value)
        if len(upload.problems) > before:
            continue
        count = example_tokens(value)
        if count > limit:
            upload.wrong(
                number, "too_many_tokens", f"{count} tokens, the model takes {limit}; nothing is cut silently"
            )
            continue
        upload.examples.append((number, value))
    return upload


def _example(upload: Upload, line: int, value: Any) -> None:
    if not isinstance(value, dict):
        upload.wrong(line, "data_type", f"an example is an object, not {_kind(value)}")
        return
    messages = value.get("messages")
    if not messages or not isinstance(messages, list):
        upload.wrong(line, "missing_messages_list", "no list of messages")
        return
    for key in sorted(set(value) - {"messages", "tools", "parallel_tool_calls", "functions"}):
        upload.wrong(line, "unrecognized_key", f"'{_short(key)}' beside messages")
    for index, message in enumerate(messages):
        _message(upload, line, index, message)
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if "assistant" not in roles:
        upload.wrong(line, "example_missing_assistant_message", "no message from the assistant")
    elif roles[-1] != "assistant":
        upload.wrong(line, "last_message_not_assistant", "the last message must be the assistant's")


def _message(upload: Upload, line: int, index: int, message: Any) -> None:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        upload.wrong(line, "data_type", f"{where} is an object, not {_kind(message)}")
        return
    if "role" not in message or "content" not in message:
        missing = " and ".join(key for key in ("role", "content") if key not in message)
        upload.wrong(line, "message_missing_key", f"{where} has no {missing}")
    for key in sorted(set(message) - set(_KEYS)):
        upload.wrong(line, "message_unrecognized_key", f"{where} has '{_short(key)}'")
    role = message.get("role")
    if "role" in message and (not isinstance(role, str) or role not in ROLES):
        upload.wrong(line, "unrecognized_role", f"{where} has role '{_short(str(role))}'")
    content = message.get("content")
    if "content" in message and not isinstance(content, str):
        if not (
            content is None
            and role == "assistant"
            and (message.get("tool_calls") or message.get("function_call"))
        ):
            upload.wrong(line, "missing_content", f"{where}.content is {_kind(content)}, not text")
    elif isinstance(content, str) and not content.strip():
        code = "empty_assistant_message" if role == "assistant" else "missing_content"
        upload.wrong(line, code, f"{where}.content is empty")


def _duplicates(upload: Upload) -> None:
    seen: dict[str, int] = {}
    for line, example in upload.examples:
        first = seen.setdefault(_fingerprint(example), line)
        if first != line:
            upload.wrong(line, "duplicate_example", f"is line {first} again", warning=True)


def _fingerprint(example: dict[str, Any]) -> str:
    return json.dumps(example["messages"], sort_keys=True)


def example_tokens(example: dict[str, Any]) -> int:
    """Tokens of one example by the study's rule: each message 3 and its values, the example 3 more."""
    return 3 + sum(
        3 + sum(tokens.count(value) for value in message.values() if isinstance(value, str))
        for message in example["messages"]
    )


def statistics(examples: Iterable[dict[str, Any]]) -> dict[str, dict[str, float | int]]:
    """The notebook's statistics: messages, tokens and assistant tokens an example."""
    found = list(examples)
    return {
        "messages": tokens.statistics([len(example["messages"]) for example in found]),
        "tokens": tokens.statistics([example_tokens(example) for example in found]),
        "assistant_tokens": tokens.statistics(
            [
                sum(
                    tokens.count(message["content"] or "")
                    for message in example["messages"]
                    if message["role"] == "assistant"
                )
                for example in found
            ]
        ),
    }


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _short(text: str) -> str:
    """What a client wrote, printable and short enough for a message."""
    flat = printable(text[:40], replacement="?")
    return flat if len(text) <= 40 else f"{flat}…"
