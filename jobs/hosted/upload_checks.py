"""Validation of an upload: every problem at once, with line numbers. Pure.

The first seven checks are those of the study's notebook, under its names. A service reports the others only
after a job has started, or never. The rehearsal server runs the same checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs.data import tokens
from launcher.spec.providers import Limits
from launcher.system.text import printable

ROLES = ("system", "user", "assistant", "developer", "function", "tool")
_KEYS = ("role", "content", "name", "function_call", "tool_calls", "tool_call_id", "weight", "refusal")


@dataclass(frozen=True)
class Problem:
    """One problem. `line` counts from 1; None means the whole file."""

    file: str
    line: int | None
    code: str
    what: str
    #: Services accept the file in spite of a warning.
    warning: bool = False

    def text(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.code}: {self.what}"


@dataclass
class Upload:
    """One file: its valid examples with their line numbers, and its problems."""

    name: str
    examples: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add_problem(self, line: int | None, code: str, what: str, *, warning: bool = False) -> None:
        self.problems.append(Problem(self.name, line, code, what, warning))

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if not problem.warning]

    @property
    def messages(self) -> int:
        return sum(len(example["messages"]) for _, example in self.examples)


def check(training: bytes, validation: bytes = b"", *, limits: Limits, model: str) -> tuple[Upload, Upload]:
    """Both files with all their problems, ordered by line. `limits` are those of the provider of `model`."""
    read = (
        _read("train.jsonl", training, limits, model),
        _read("validation.jsonl", validation, limits, model),
    )
    first = read[0]
    found = len(first.examples)
    if found < limits.examples:
        first.add_problem(
            None, "too_few_examples", f"{found} usable examples, at least {limits.examples} are needed"
        )
    for upload in read:
        _duplicates(upload)
    known = {_fingerprint(example): line for line, example in first.examples}
    for line, example in read[1].examples:
        if (other := known.get(_fingerprint(example))) is not None:
            read[1].add_problem(
                line, "validation_overlap", f"is line {other} of the training file too", warning=True
            )
    for upload in read:
        upload.problems.sort(key=lambda problem: problem.line or 0)
    return read


def _read(name: str, data: bytes, limits: Limits, model: str) -> Upload:
    upload = Upload(name)
    limit_tokens = limits.example_limit_tokens(model)
    if len(data) > limits.upload_bytes:
        upload.add_problem(
            None, "too_large", f"{len(data)} bytes, at most {limits.upload_bytes} are accepted"
        )
        return upload
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            if line or number <= data.count(b"\n"):
                upload.add_problem(number, "empty_line", "the line is empty")
            continue
        before = len(upload.problems)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            upload.add_problem(number, "invalid_json", "not JSON in UTF-8")
            continue
        _example(upload, number, value)
        if len(upload.problems) > before:
            continue
        count = example_tokens(value)
        if count > limit_tokens:
            upload.add_problem(
                number,
                "too_many_tokens",
                f"{count} tokens, the model's limit is {limit_tokens}; nothing is truncated silently",
            )
            continue
        upload.examples.append((number, value))
    return upload


def _example(upload: Upload, line: int, value: Any) -> None:
    if not isinstance(value, dict):
        upload.add_problem(line, "data_type", f"an example is an object, not {_kind(value)}")
        return
    messages = value.get("messages")
    if not messages or not isinstance(messages, list):
        upload.add_problem(line, "missing_messages_list", "no list of messages")
        return
    for key in sorted(set(value) - {"messages", "tools", "parallel_tool_calls", "functions"}):
        upload.add_problem(line, "unrecognized_key", f"'{_short(key)}' beside messages")
    for index, message in enumerate(messages):
        _message(upload, line, index, message)
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if "assistant" not in roles:
        upload.add_problem(line, "example_missing_assistant_message", "no message from the assistant")
    elif roles[-1] != "assistant":
        upload.add_problem(line, "last_message_not_assistant", "the last message must be the assistant's")


def _message(upload: Upload, line: int, index: int, message: Any) -> None:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        upload.add_problem(line, "data_type", f"{where} is an object, not {_kind(message)}")
        return
    if "role" not in message or "content" not in message:
        missing = " and ".join(key for key in ("role", "content") if key not in message)
        upload.add_problem(line, "message_missing_key", f"{where} has no {missing}")
    for key in sorted(set(message) - set(_KEYS)):
        upload.add_problem(line, "message_unrecognized_key", f"{where} has '{_short(key)}'")
    role = message.get("role")
    if "role" in message and (not isinstance(role, str) or role not in ROLES):
        upload.add_problem(line, "unrecognized_role", f"{where} has role '{_short(str(role))}'")
    content = message.get("content")
    if "content" in message and not isinstance(content, str):
        if not (
            content is None
            and role == "assistant"
            and (message.get("tool_calls") or message.get("function_call"))
        ):
            upload.add_problem(line, "missing_content", f"{where}.content is {_kind(content)}, not text")
    elif isinstance(content, str) and not content.strip():
        code = "empty_assistant_message" if role == "assistant" else "missing_content"
        upload.add_problem(line, code, f"{where}.content is empty")


def _duplicates(upload: Upload) -> None:
    seen: dict[str, int] = {}
    for line, example in upload.examples:
        first = seen.setdefault(_fingerprint(example), line)
        if first != line:
            upload.add_problem(line, "duplicate_example", f"is line {first} again", warning=True)


def _fingerprint(example: dict[str, Any]) -> str:
    return json.dumps(example["messages"], sort_keys=True)


def example_tokens(example: dict[str, Any]) -> int:
    """Tokens of one example by the study's rule: 3 and the values for each message, and 3 for the example."""
    return 3 + sum(
        3 + sum(tokens.count(value) for value in message.values() if isinstance(value, str))
        for message in example["messages"]
    )


def statistics(examples: Iterable[dict[str, Any]]) -> dict[str, dict[str, float | int]]:
    """The notebook's statistics: messages, tokens and assistant tokens per example."""
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
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _short(text: str) -> str:
    """Text of a client, printable and shortened for a message."""
    flat = printable(text[:40], replacement="?")
    return flat if len(text) <= 40 else f"{flat}…"
