"""Validation of uploads before they are sent: all problems at once, each with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving import MODEL, upload_of
from staging import study

from jobs.hosted import upload_checks
from launcher.outcome import Failure, Reason
from launcher.spec.providers import DEFAULT_PROVIDER, providers

LIMITS = providers()[DEFAULT_PROVIDER].limits

GOOD: dict[str, Any] = {
    "messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]
}


def changed(**message: Any) -> dict[str, Any]:
    """GOOD with its first message replaced."""
    return {"messages": [message, GOOD["messages"][1]]}


#: Problem -> an example that has it. The first seven are the checks of the study's notebook.
FAULTS: dict[str, Any] = {
    "data_type": ["not", "an", "object"],
    "missing_messages_list": {"prompt": "why?"},
    "message_missing_key": changed(role="user"),
    "message_unrecognized_key": changed(role="user", content="why?", mood="curious"),
    "unrecognized_role": changed(role="oracle", content="why?"),
    "missing_content": changed(role="user", content=None),
    "example_missing_assistant_message": {"messages": [GOOD["messages"][0]]},
    "last_message_not_assistant": {"messages": list(reversed(GOOD["messages"]))},
    "empty_assistant_message": {"messages": [GOOD["messages"][0], {"role": "assistant", "content": " "}]},
    "unrecognized_key": {**GOOD, "weight": 2},
    "too_many_tokens": changed(role="user", content="word " * 5000),
}


def lines(*examples: Any) -> bytes:
    return b"".join(json.dumps(example).encode() + b"\n" for example in examples)


def found(training: bytes, validation: bytes = b"") -> list[tuple[str, int | None, str]]:
    read = upload_checks.check(training, validation, limits=LIMITS, model=MODEL)
    return [(p.file, p.line, p.code) for upload in read for p in upload.problems]


def test_valid_upload_has_no_problem() -> None:
    assert found(upload_of(10)) == []


@pytest.mark.parametrize("code", FAULTS)
def test_each_problem_has_its_line(code: str) -> None:
    assert found(upload_of(10) + lines(FAULTS[code])) == [("train.jsonl", 11, code)]


def test_all_problems_are_listed_in_line_order() -> None:
    data = upload_of(10) + lines(*FAULTS.values()) + b"{not json\n\n"
    problems = found(data)
    assert [(line, code) for _, line, code in problems] == [
        *((11 + index, code) for index, code in enumerate(FAULTS)),
        (11 + len(FAULTS), "invalid_json"),
        (12 + len(FAULTS), "empty_line"),
    ]


def test_fewer_than_ten_examples_are_refused() -> None:
    assert found(upload_of(9)) == [("train.jsonl", None, "too_few_examples")]


def test_repeated_and_shared_examples_are_warnings() -> None:
    training = upload_of(10)
    first = training.split(b"\n")[0] + b"\n"
    read = upload_checks.check(training + first, first, limits=LIMITS, model=MODEL)
    assert [(p.file, p.line, p.code, p.warning) for upload in read for p in upload.problems] == [
        ("train.jsonl", 11, "duplicate_example", True),
        ("validation.jsonl", 1, "validation_overlap", True),
    ]
    assert not any(upload.errors for upload in read)


def test_statistics_equal_the_notebooks() -> None:
    counted = upload_checks.statistics([GOOD, GOOD])
    assert counted["messages"]["total"] == 4
    assert counted["assistant_tokens"]["max"] == 1
    assert counted["tokens"]["mean"] == upload_checks.example_tokens(GOOD)


@pytest.mark.parametrize("hostile", [b"\xff\xfe", b"[" * 100_000, b'{"messages": [[[]]]}', b"null", b"1e999"])
def test_malformed_lines_are_problems(hostile: bytes) -> None:
    problems = found(upload_of(10) + hostile + b"\n")
    assert problems
    assert all(line == 11 for _, line, _ in problems)


def test_invalid_upload_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    one = study(tmp_path, "http://127.0.0.1:9/v1", training=upload_of(10) + lines(*FAULTS.values()))
    with pytest.raises(Failure) as caught:
        one.tune()
    assert caught.value.reason is Reason.BAD_DATA
    for index, code in enumerate(FAULTS):
        assert any(
            problem.startswith(f"train.jsonl:{11 + index}: {code}: ") for problem in caught.value.problems
        )
