"""`launcher score` prints one JSON object or one table on stdout."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_sql_data import QUESTIONS, SqlData

from launcher.cli.main import main


def answers_file(path: Path, answers: list[str]) -> Path:
    file = path / "answers.jsonl"
    file.write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in answers))
    return file


def test_json_output_has_measures_intervals_reasons_and_breakdowns(
    sql_data: SqlData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [sql for _, sql in QUESTIONS]
    answers[0] = "SELECT 17"
    answers[1] = "select name from singer order by age desc"
    file = answers_file(tmp_path, answers)
    code = main(
        [
            "score",
            "sql",
            "--data",
            str(sql_data.directory),
            "--split",
            "train",
            "--predictions",
            str(file),
            "-o",
            "json",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (found["rows"], found["valid_gold"]) == (8, 8)
    assert (found["exact"], found["exact_normalised"], found["strict"]) == (6 / 8, 7 / 8, 7 / 8)
    low, high = found["intervals"]["strict"]
    assert 0 < low < 7 / 8 < high < 1
    assert found["reasons"] == {"wrong rows": 1}
    assert found["breakdowns"]["database"]["music"]["rows"] == 8


def test_viggo_has_strict_canonical_and_attribute_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "viggo-test.csv").write_text(
        'mr,ref\n"inform(name[a], rating[good])",A is good.\n"request(rating[good])",Any good?\n'
    )
    file = answers_file(tmp_path, ["inform(rating[good], name[a])", "request(rating[poor])"])
    main(
        [
            "score",
            "viggo",
            "--data",
            str(tmp_path),
            "--split",
            "test",
            "--predictions",
            str(file),
            "-o",
            "json",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["strict"], found["canonical"], found["function"]) == (0.0, 0.5, 1.0)
    assert found["attribute_precision"] == 2 / 3


def test_chat_uses_the_named_scorers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "mine.py").write_text("def even(answer, gold, row):\n    return int(answer[-1]) % 2 == 0\n")
    monkeypatch.chdir(tmp_path)
    file = answers_file(tmp_path, ["it is 4"])
    names = ["--scorer", "number", "--scorer", "mine:even"]
    main(
        ["score", "chat", "--data", ".", "--split", "test", "--predictions", str(file), "-o", "json", *names]
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["number"], found["mine:even"]) == (0.0, 1.0)


def test_scoring_imports_neither_torch_nor_numpy(sql_data: SqlData, tmp_path: Path) -> None:
    file = answers_file(tmp_path, [sql for _, sql in QUESTIONS])
    arguments = [
        "score",
        "sql",
        "--data",
        str(sql_data.directory),
        "--split",
        "train",
        "--predictions",
        str(file),
    ]
    code = (
        "import sys\nfrom launcher.cli.main import main\n"
        f"main({arguments!r})\n"
        "print([m for m in ('torch', 'numpy', 'transformers', 'scipy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == "[]"
    assert "strict" in done.stdout
