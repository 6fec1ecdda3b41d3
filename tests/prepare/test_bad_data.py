"""Every problem of every file is reported together, by file and line, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import data_sets
import pytest

from jobs.data.sources import read_part, read_parts
from jobs.data.splits import collect
from launcher.outcome import Failure, Reason
from launcher.spec.experiment import Data


def problems_of(directory: Path, source: str, **data: Any) -> tuple[str, ...]:
    task = {"chat": "chat", "viggo": "viggo"}.get(source, "sql")
    with pytest.raises(Failure) as caught:
        collect(task, Data.model_validate({"source": source, **data}), directory, lambda _done, _total: None)
    assert caught.value.reason is Reason.BAD_DATA
    assert caught.value.where == str(directory)
    return caught.value.problems


def test_chat_problems_name_file_line_and_key(tmp_path: Path) -> None:
    user, answer = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
    rows: list[Any] = [
        "not an object",
        {},
        {"messages": []},
        {"messages": [user, {"role": "robot", "content": "A"}]},
        {"messages": [{"content": "Q"}, answer]},
        {"messages": [{"role": "user"}, answer]},
        {"messages": [{"role": "user", "content": ["Q"]}, answer]},
        {"messages": [user, {"role": "assistant", "content": " "}]},
        {"messages": [user]},
        {"messages": [user, answer, user]},
        {"messages": [answer]},
        {"messages": [user, {**answer, "weight": 1}]},
        {"messages": [user, {"role": "system", "content": "S"}, answer]},
        {"messages": [user, answer], "id": 1.5},
        {"messages": [user, answer], "id": "twice"},
        {"messages": [user, answer], "id": "twice"},
        {"messages": [user, "Q", answer]},
        {"messages": [user, answer], "database": "../../etc/passwd"},
    ]
    data_sets.write_chat(tmp_path)
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "train.jsonl").write_text("{broken\n" + text + "\n")
    (tmp_path / "test.jsonl").write_bytes(b"\n" + b'{"messages": "\xff"}\n')
    assert problems_of(tmp_path, "chat") == (
        "train.jsonl:1: not JSON: Expecting property name enclosed in double quotes",
        "train.jsonl:2: not an object with messages",
        "train.jsonl:3: messages: missing",
        "train.jsonl:4: messages: must be a list with at least one message",
        "train.jsonl:5: messages[1].role: 'robot' is none of system, user, assistant",
        "train.jsonl:5: messages: no message from the assistant",
        "train.jsonl:6: messages[0].role: missing",
        "train.jsonl:7: messages[0].content: missing",
        "train.jsonl:8: messages[0].content: must be text",
        "train.jsonl:9: messages[1].content: empty",
        "train.jsonl:10: messages: no message from the assistant",
        "train.jsonl:11: messages: the last one must be the assistant's, it is the answer",
        "train.jsonl:12: messages: nothing comes before the answer",
        "train.jsonl:13: messages[1].weight: no such key",
        "train.jsonl:14: messages: a system message must be the first",
        "train.jsonl:15: id: must be text or a whole number",
        "train.jsonl:17: id: 'twice' is the id of line 16 too",
        "train.jsonl:18: messages[1]: not an object with role and content",
        "train.jsonl:19: database: this key is not the user's to set",
        "test.jsonl:2: not UTF-8",
    )


def test_empty_files_are_bad_data(tmp_path: Path) -> None:
    data_sets.write_chat(tmp_path, train=0, test=0, validation=0)
    assert problems_of(tmp_path, "chat") == (
        "train.jsonl: has no rows",
        "validation.jsonl: has no rows",
        "test.jsonl: has no rows",
    )


def test_a_csv_without_its_columns_or_with_empty_cells(tmp_path: Path) -> None:
    data_sets.write_viggo(tmp_path)
    (tmp_path / "viggo-train.csv").write_text("a,ref\n1,2\n")
    (tmp_path / "viggo-valid.csv").write_text("mr,ref\n")
    (tmp_path / "viggo-test.csv").write_text('mr,ref\n"inform(a[b])","two\nlines"\n,x\ninform(c[d])\n')
    assert problems_of(tmp_path, "viggo") == (
        "viggo-train.csv:1: no column mr",
        "viggo-valid.csv: has no rows",
        "viggo-test.csv:4: mr: missing or empty",
        "viggo-test.csv:5: ref: missing or empty",
    )


def test_json_of_the_wrong_shape(tmp_path: Path) -> None:
    data_sets.write_spider_create_context(tmp_path)
    rows = [{"question": "Q", "context": "C", "answer": "", "db_id": 3}, 7]
    (tmp_path / "spider_create_context_train.json").write_text(json.dumps(rows))
    (tmp_path / "spider_create_context_val.json").write_text("{")
    found = problems_of(tmp_path, "spider-create-context")
    assert found[:2] == (
        "spider_create_context_train.json row 1: answer, db_id: missing, empty or not text",
        "spider_create_context_train.json row 2: not an object",
    )
    assert found[2].startswith("spider_create_context_val.json: not JSON")


def test_a_spider_question_without_schema(tmp_path: Path) -> None:
    data_sets.write_spider(tmp_path)
    (tmp_path / "tables.json").write_text(json.dumps([data_sets.spider_schema("shop_0"), {"db_id": "x"}]))
    found = problems_of(tmp_path, "spider")
    assert found[0] == "tables.json schema 2: not a Spider schema: KeyError 'table_names_original'"
    assert found[1] == "train_spider.json row 3: db_id: 'shop_1' has no schema in tables.json"


def test_more_rows_than_there_are(tmp_path: Path) -> None:
    data_sets.write_viggo(tmp_path)
    assert problems_of(tmp_path, "viggo", train_rows=13, validation_rows=6, test_rows=5) == (
        "data.validation_rows: 6 asked for, the part has 5",
        "data.train_rows: 13 asked for, the part has 12",
        "data.test_rows: 5 asked for, the part has 4",
    )


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    data_sets.write_spider_create_context(tmp_path)
    (problem,) = problems_of(tmp_path, "spider-create-context", validation_rows=12)
    assert "the training part has 12 rows, of which 0 are left for training" in problem


def test_missing_files_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "viggo-valid.csv").write_text("mr,ref\na,b\n")
    with pytest.raises(Failure) as caught:
        read_parts("viggo", "viggo", tmp_path, ["train", "validation", "test"])
    assert caught.value.reason is Reason.MISSING_INPUT
    assert caught.value.what == "there is no viggo-train.csv and no viggo-test.csv"


def test_a_run_without_test_file_says_which_is_missing(tmp_path: Path) -> None:
    data_sets.write_chat(tmp_path)
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(Failure) as caught:
        collect("chat", Data(source="chat"), tmp_path, lambda _done, _total: None)
    assert caught.value.reason is Reason.MISSING_INPUT
    assert "test.jsonl" in caught.value.what


def test_thousands_of_problems_are_cut_with_their_count(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("{}\n" * 3000)
    with pytest.raises(Failure) as caught:
        read_part("chat", "chat", tmp_path, "test")
    assert caught.value.what == "3000 problems in the data"
    assert len(caught.value.problems) == 51
    assert caught.value.problems[-1] == "… and 2950 more"


def test_half_a_surrogate_pair_is_a_problem_with_its_line(tmp_path: Path) -> None:
    data_sets.write_chat(tmp_path)
    (tmp_path / "test.jsonl").write_text(data_sets.chat_line("\ud800", "A") + "\n")
    (problem,) = problems_of(tmp_path, "chat")
    assert problem.startswith("test.jsonl:1: holds half of a surrogate pair")
    study = data_sets.write_spider_create_context(tmp_path / "study")
    row = {"question": "\udfff", "context": "C", "answer": "A", "db_id": "d"}
    (study / "spider_create_context_val.json").write_text(json.dumps([row]))
    (problem,) = problems_of(study, "spider-create-context")
    assert problem.startswith("spider_create_context_val.json row 1: holds half")


def test_deep_nesting_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("[" * 200_000 + "\n")
    with pytest.raises(Failure) as caught:
        read_part("chat", "chat", tmp_path, "test")
    assert caught.value.problems[0].startswith("test.jsonl:1: not JSON")
