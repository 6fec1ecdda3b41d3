"""`launcher data ./FOLDER` and `launcher score ./FOLDER`: a task of the user's own without a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.cli.main import main
from launcher.spec.tasks import built_in_names

LETTERS = Path(__file__).parent / "letters"


def test_a_folder_is_prepared_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prepared"
    assert main(["data", str(LETTERS), "--out", str(out), "--test-rows", "3"]) == 0
    rows = [json.loads(line) for line in (out / "test.jsonl").read_text().splitlines()]
    assert [row["fields"]["task"] for row in rows] == ["letters"] * 3
    assert all(row["fields"]["plain_prompt"].endswith("letters.\n") for row in rows)
    answers = tmp_path / "answers.jsonl"
    given = [rows[0]["messages"][-1]["content"], "", ""]
    answers.write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in given))
    capsys.readouterr()
    arguments = ["score", str(LETTERS), "--data", str(out), "--split", "test", "--predictions", str(answers)]
    assert main([*arguments, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["primary"] == "in_place"
    assert found["in_place"] == found["whole"] == pytest.approx(1 / 3)
    assert main(arguments) == 0
    assert "in_place   0.3333  95 % 0 to 1  (mean of 3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "code", "message"),
    [
        ("poetry", 2, f"none of {', '.join(built_in_names())} and not a folder"),
        ("./nowhere", 12, "nowhere/task.yaml"),
    ],
)
def test_an_unknown_task_is_refused_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, code: int, message: str
) -> None:
    assert main(["data", task, "--out", str(tmp_path / "out")]) == code
    assert message in capsys.readouterr().err
