"""The export reproduces the study's upload files byte for byte, and OpenAI's token counts to the token."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from jobs.data import tokens
from jobs.data.sources import read_part
from jobs.data.upload import upload_bytes
from jobs.tasks.chat import prompt as chat
from jobs.tasks.sql import prompt as sql
from jobs.tasks.viggo import prompt as viggo


@pytest.mark.shared
@pytest.mark.parametrize(
    ("task", "source", "part", "size_bytes", "digest", "file"),
    [
        (
            "sql",
            "spider-create-context",
            "train",
            2_483_671,
            "571240a9fc3bf17df5c56e3ba4b0cdee73211b492875857e9cc614ba95743d9f",
            "spider_create_context_train_oai_format.jsonl",
        ),
        (
            "sql",
            "spider-create-context",
            "validation",
            352_492,
            "08414a433ac63411812434be19ae9673cd9ec6c233ea82d6ceaca9184696f8c5",
            "spider_create_context_validation_oai_format.jsonl",
        ),
        (
            "viggo",
            "viggo",
            "test",
            1_082_345,
            "696a5819281ad12b69033477fe31865914103b9fc0557d631a902e0384f68e55",
            "validation_oai_format.jsonl",
        ),
        # The study's own file is not at hand; its size is known.
        (
            "viggo",
            "viggo",
            "train",
            5_194_070,
            "bb09d5e02c71e23500bb77adc7704a3fdc3baa8bc51af0564f17ea803f1940d0",
            None,
        ),
    ],
)
def test_the_upload_equals_the_studys_file(
    shared_data: Path, task: str, source: str, part: str, size_bytes: int, digest: str, file: str | None
) -> None:
    made = upload_bytes(read_part(task, source, shared_data, part))
    assert len(made) == size_bytes
    assert hashlib.sha256(made).hexdigest() == digest
    if file is not None:
        assert made == (shared_data / source / file).read_bytes()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("task", "source", "expected"),
    [("sql", "spider-create-context", 499_652), ("viggo", "viggo", 1_085_690)],
)
def test_training_tokens_of_the_study(shared_data: Path, task: str, source: str, expected: int) -> None:
    rows = read_part(task, source, shared_data, "train")
    assert sum(map(tokens.training_tokens, rows)) == expected


def test_upload_escapes_what_is_not_ascii_and_keeps_row_order() -> None:
    rows = [chat.make_row(str(n), [{"role": "user", "content": f"é {n}"}], {}) for n in range(3)]
    lines = upload_bytes(rows).splitlines()
    assert lines[0] == b'{"messages": [{"role": "user", "content": "\\u00e9 0"}]}'
    assert [json.loads(line)["messages"][0]["content"] for line in lines] == ["é 0", "é 1", "é 2"]


def test_plain_prompts_equal_the_studys() -> None:
    row = sql.make_row(
        "a", question="Q?", gold="SELECT 1", context="CREATE TABLE t (a INT)", schema="s", db_id="d"
    )
    assert sql.plain_prompt(row) == (
        "You are a powerful text-to-SQL model. Your job is to answer questions about a database. You are given "
        "a question and context regarding one or more tables.\n\nYou must output the SQL query that answers "
        "the question.\n\n### Input:\nQ?\n\n### Context:\nCREATE TABLE t (a INT)\n\n### Response:\n"
    )
    text = viggo.plain_prompt(viggo.make_row("b", target="A game.", meaning="inform(name[A])"))
    assert text.endswith("\n\n### Target sentence:\nA game.\n\n### Meaning representation:\n")
    assert text.startswith("Given a target sentence construct the underlying meaning representation")
    assert "['inform', 'request', 'give_opinion', " in text
