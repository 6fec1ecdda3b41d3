"""Predictions files: matching to questions, and errors with line numbers, all at once."""

import json
from pathlib import Path

import pytest

from jobs.score.predictions import read_answers
from launcher.outcome import Failure, Reason

IDS = ["a", "b", "c"]


def written(path: Path, *lines: object) -> Path:
    file = path / "predictions.jsonl"
    file.write_bytes(b"".join((x if isinstance(x, bytes) else json.dumps(x).encode()) + b"\n" for x in lines))
    return file


def problems(path: Path, *lines: object) -> tuple[str, ...]:
    with pytest.raises(Failure) as failure:
        read_answers(written(path, *lines), IDS)
    assert failure.value.reason is Reason.BAD_DATA
    return failure.value.problems


def test_answers_in_the_order_of_the_data(tmp_path: Path) -> None:
    assert read_answers(written(tmp_path, *({"answer": x} for x in "xyz")), IDS) == ["x", "y", "z"]


def test_answers_by_id_in_any_order(tmp_path: Path) -> None:
    lines = [
        {"id": "c", "answer": "z"},
        {"id": "a", "answer": "x"},
        {"answer": "y", "id": "b", "finish": "stop"},
    ]
    assert read_answers(written(tmp_path, *lines), IDS) == ["x", "y", "z"]


def test_every_problem_is_named_with_its_line(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        b"{broken",
        [1],
        {"id": "a"},
        {"id": "b", "answer": 5},
        {"id": "zz", "answer": ""},
        {"id": "b", "answer": ""},
        {"answer": ""},
    ) == (
        "line 1: not JSON: Expecting property name enclosed in double quotes",
        "line 2: not a JSON object",
        "line 3: has no answer",
        "line 4: answer: must be text",
        "line 5: id 'zz' is none of the questions' (they look like 'a')",
        "line 6: id 'b' was answered on line 4 already",
        "line 7: has no id, though other lines have one",
        "1 question without an answer: c",
    )


@pytest.mark.parametrize(
    ("count", "words"), [(2, "2 answers for 3 questions"), (4, "4 answers for 3 questions"), (0, "0 answers")]
)
def test_a_wrong_number_of_answers_is_refused(tmp_path: Path, count: int, words: str) -> None:
    (problem,) = problems(tmp_path, *[{"answer": "x"}] * count)
    assert words in problem


def test_a_broken_line_does_not_hide_the_wrong_number_of_answers(tmp_path: Path) -> None:
    assert problems(tmp_path, {"answer": "x"}, b"{broken") == (
        "2 answers for 3 questions, and no ids to tell which",
        "line 2: not JSON: Expecting property name enclosed in double quotes",
    )
    assert problems(tmp_path, *[{"answer": 5}] * 4)[0].startswith("4 answers for 3 questions")
    assert len(problems(tmp_path, {"answer": "x"}, b"{broken", {"answer": "z"})) == 1


def test_a_file_in_another_format_is_not_listed_whole(tmp_path: Path) -> None:
    found = problems(tmp_path, *[b"SELECT 1"] * 500)
    assert len(found) == 51
    assert found[-1] == "… and 450 more"


def test_a_broken_answer_costs_itself_only(tmp_path: Path) -> None:
    file = written(tmp_path, b'{"answer": "\xff\xfe"}', b'{"answer": "\\ud800"}', b'{"answer": "a\\u0000b"}')
    assert read_answers(file, IDS) == ["\ufffd\ufffd", "?", "a\0b"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot read") as failure:
        read_answers(tmp_path / "none", IDS)
    assert failure.value.reason is Reason.MISSING_INPUT
    assert failure.value.next_step == "correct the path in --predictions"


def test_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b'\xef\xbb\xbf{"answer": "x"}\r\n\r\n{"answer": "y"}\r\n{"answer": "z"}')
    assert read_answers(file, IDS) == ["x", "y", "z"]
