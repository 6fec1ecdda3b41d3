"""A file of answers, matched to the questions: every problem at once, each with its line.

JSONL, one `{"answer": …}` per question. Either no line has an `id`, and the answers are in the
data's order, or every line has one, and the order is free. Other keys are ignored. Bytes that are
not UTF-8 are replaced: a broken answer is an answer, and costs itself only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.system.text import first_of

#: Problems listed one by one; a file in another format has one on every line.
_MAX_LISTED = 50


def read_answers(path: Path, ids: Sequence[str]) -> list[str]:
    """The answer to each question of `ids`, in that order.

    Raises Failure(MISSING_INPUT) if the file cannot be read, Failure(BAD_DATA) with all problems.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Failure(
            Reason.MISSING_INPUT,
            f"cannot read: {error.strerror}",
            where=str(path),
            next_step="correct the path in --predictions",
        ) from None
    problems: list[str] = []
    numbered = enumerate(raw.decode("utf-8-sig", "replace").split("\n"), 1)
    texts = [(number, line) for number, line in numbered if line.strip()]
    lines = [
        (number, value) for number, line in texts if (value := _value(line, number, problems)) is not None
    ]
    if any("id" in value for _, value in lines):
        answers = _by_id(lines, ids, problems)
    else:
        answers = [_text(value, number, problems) for number, value in lines]
        # A line that cannot be read is an answer too; a file without any other is in another format.
        if len(texts) != len(ids) and (lines or not texts):
            given, asked = _count(len(texts), "answer"), _count(len(ids), "question")
            problems.insert(0, f"{given} for {asked}, and no ids to tell which")
    if problems:
        listed = first_of(problems, _MAX_LISTED)
        raise Failure(
            Reason.BAD_DATA,
            _count(len(problems), "problem"),
            where=str(path),
            problems=tuple(listed),
            next_step='write one {"answer": …} a line, in the order of the data, or with the "id" of its question',
        )
    return answers


def _value(line: str, number: int, problems: list[str]) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        problems.append(f"line {number}: not JSON: {what}")
        return None
    if not isinstance(value, dict):
        problems.append(f"line {number}: not a JSON object")
        return None
    return value


def _text(value: dict[str, Any], number: int, problems: list[str]) -> str:
    answer = value.get("answer")
    if not isinstance(answer, str):
        what = "has no answer" if "answer" not in value else "answer: must be text"
        problems.append(f"line {number}: {what}")
        return ""
    # A lone surrogate, which JSON can hold, is no character and cannot be written again.
    return answer.encode("utf-8", "replace").decode("utf-8")


def _by_id(lines: Sequence[tuple[int, dict[str, Any]]], ids: Sequence[str], problems: list[str]) -> list[str]:
    known, answers, first = set(ids), dict[str, str](), dict[str, int]()
    for number, value in lines:
        answer = _text(value, number, problems)
        if "id" not in value:
            problems.append(f"line {number}: has no id, though other lines have one")
            continue
        name = str(value["id"])
        if name not in known:
            example = f" (they look like '{ids[0]}')" if ids else ""
            problems.append(f"line {number}: id '{name[:80]}' is none of the questions'{example}")
        elif name in first:
            problems.append(f"line {number}: id '{name}' was answered on line {first[name]} already")
        else:
            first[name] = number
            answers[name] = answer
    missing = [name for name in ids if name not in first]
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        problems.append(f"{_count(len(missing), 'question')} without an answer: {shown}")
    return [answers.get(name, "") for name in ids]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
