"""Errors of `launcher score`: all problems at once, before scoring starts, and the computed result is printed."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_sql_data import QUESTIONS, SqlData

from jobs.score import command
from launcher.cli.main import main

Streams = tuple[int, str, str]
Score = Callable[..., Streams]


@pytest.fixture
def score(sql_data: SqlData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Score:
    """Score correct answers, or the given lines, with more options: exit code, stdout, stderr."""

    def run(*more: str, lines: str | None = None, task: str = "sql") -> Streams:
        file = tmp_path / "answers.jsonl"
        right = "".join(json.dumps({"answer": sql}) + "\n" for _, sql in QUESTIONS)
        file.write_text(right if lines is None else lines)
        base = [
            "--data",
            str(sql_data.directory),
            "--split",
            "train",
            "--predictions",
            str(file),
            "--no-cache",
        ]
        code = main(["score", task, *base, *more])
        return code, *capsys.readouterr()

    return run


def test_every_problem_of_the_answers_is_listed(score: Score) -> None:
    code, out, err = score(lines='{"answer": 1}\nnothing\n')
    assert (code, out) == (11, "")
    assert err.startswith("error: ")
    for problem in ("2 answers for 8 questions", "line 1: answer: must be text", "line 2: not JSON"):
        assert problem in err


def test_a_missing_answers_file_is_exit_12(score: Score, tmp_path: Path) -> None:
    code, _, err = score("--predictions", str(tmp_path / "none"))
    assert (code, err.splitlines()[-1]) == (12, "next: correct the path in --predictions")


@pytest.mark.parametrize(
    ("task", "more", "words"),
    [
        ("sql", ["--scorer", "exact"], "--scorer is for task chat"),
        ("viggo", ["--scorer", "exact"], "--scorer is for task chat"),
        ("viggo", ["--survivors", "x"], "--survivors is for task sql"),
        ("chat", ["--survivors", "x"], "--survivors is for task sql"),
    ],
)
def test_an_option_of_another_task_is_a_usage_error(
    score: Score, task: str, more: list[str], words: str
) -> None:
    code, out, err = score(*more, task=task)
    assert (code, out) == (2, "")
    assert words in err
    assert "next: leave them out, or name the task they are for" in err


@pytest.mark.parametrize("option", ["--details", "--survivors"])
def test_an_output_file_that_cannot_be_written_is_an_error_before_scoring(
    score: Score,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "score_rows", None)
    for path in (tmp_path, tmp_path / "none" / "x"):
        code, out, err = score(option, str(path))
        assert (code, out) == (2, "")
        assert f"{option} {path}: " in err


def test_output_files_are_unchanged_if_scoring_fails(score: Score, tmp_path: Path) -> None:
    kept, new, link = tmp_path / "kept", tmp_path / "new", tmp_path / "link"
    kept.write_text("of before")
    link.symlink_to(new)
    assert score("--details", str(kept), "--survivors", str(link), lines="nothing")[0] == 11
    assert kept.read_text() == "of before"
    assert link.is_symlink()
    assert not new.exists()
    assert score("--details", str(kept), "--survivors", str(link))[0] == 0
    assert len(kept.read_text().splitlines()) == len(QUESTIONS)
    assert new.is_file()


def test_the_result_is_printed_if_writing_its_file_fails(
    score: Score,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()

    def score_rows(*arguments: object) -> object:
        directory.rmdir()
        return real(*arguments)

    real: Callable[..., object] = vars(command)["score_rows"]
    monkeypatch.setattr(command, "score_rows", score_rows)
    code, out, err = score("--details", str(directory / "x"), "-o", "json")
    assert json.loads(out)["strict"] == 1.0
    assert code == 2
    assert "cannot write" in err


def test_a_pipe_is_opened_once(score: Score, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    assert score("--details", str(pipe))[0] == 0
    assert len(reader.communicate(timeout=30)[0].splitlines()) == len(QUESTIONS)


@pytest.mark.parametrize(
    "more", [["--source", "nonesuch"], ["--explain", "99"], ["--split", "nonesuch"], ["--data", "nonesuch"]]
)
def test_an_error_has_the_format_of_all_verbs_and_a_next_step(score: Score, more: list[str]) -> None:
    code, out, err = score(*more)
    assert code in (2, 12)
    assert out == ""
    assert err.startswith("error: ")
    assert re.search(r"^next: \S", err, re.MULTILINE)
    assert "of the command" not in err
    assert "submit" not in err


def test_error_output_contains_no_escape_sequences(score: Score) -> None:
    _, _, err = score(lines='{"id": "\\u001b[2J", "answer": "x"}\n')
    assert "\x1b" not in err
