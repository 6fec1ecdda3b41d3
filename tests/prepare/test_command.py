"""`launcher data`: prepare's files without a run, the card on stdout, problems on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import data_sets
import pytest

from jobs.data.sources import detect, read_part
from jobs.prepare.command import main


def test_the_card_is_printed_and_the_files_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_sets.write_viggo(tmp_path / "viggo")
    out = tmp_path / "new" / "out"
    assert main(["viggo", "--data", str(data), "--out", str(out), "--train-rows", "7"]) == 0
    assert "viggo from viggo" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json",
        "test.jsonl",
        "train.jsonl",
        "upload",
        "validation.jsonl",
    ]


def test_json_is_the_card_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sql", "--source", "sample", "--out", str(tmp_path / "out"), "-o", "json"]
    assert main([*arguments, "--train-rows", "5", "--validation-rows", "0", "--test-rows", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "card.json").read_text())


def test_what_was_prepared_can_be_read_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["sql", "--out", str(out), "--train-rows", "5", "--test-rows", "3"]) == 0
    assert detect("sql", out) == "prepared"
    rows = read_part("sql", "prepared", out, "test")
    assert len(rows) == 3
    assert all((out / row.fields["database"]).is_file() for row in rows)


def test_a_directory_with_something_in_it_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").write_text("x")
    assert main(["sql", "--out", str(tmp_path)]) == 2
    assert "not an empty directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["viggo"], 2, "--data"),
        (["viggo", "--source", "spider", "--data", "."], 2, "one of viggo"),
        (["chat", "--data", "absent"], 12, "no such directory"),
        (["sql", "--train-rows", "1000000"], 11, "no more than"),
    ],
)
def test_problems_are_one_message_and_leave_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--out", "out"]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
