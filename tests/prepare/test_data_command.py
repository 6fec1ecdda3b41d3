"""`launcher data`: the files of `prepare` without a run, the card on stdout, errors in the format of every verb."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import data_sets
import pytest

from jobs.data.sources import detect, read_part
from jobs.tasks.sql.sample.generate import DEFAULT_ROWS
from launcher.cli.main import main

DOC = Path(__file__).parent.parent.parent / "docs" / "data.md"
COMMANDS = re.findall(r"^launcher (data .*?)(?:\s+#.*)?$", DOC.read_text(encoding="utf-8"), re.M)
FEW = ("--train-rows", "3", "--validation-rows", "1", "--test-rows", "2")

WRITE: dict[str, Callable[[Path], Path]] = {
    "sql": data_sets.write_spider,
    "viggo": lambda path: data_sets.write_viggo(path, train=481),
    "chat": data_sets.write_chat,
}


@dataclass
class Done:
    code: int
    out: str
    err: str


Data = Callable[..., Done]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Data:
    """`launcher data …` in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        code = main(["data", *arguments])
        return Done(code, *capsys.readouterr())

    return run


def test_the_card_is_printed_and_the_files_are_written(data: Data, tmp_path: Path) -> None:
    source = data_sets.write_viggo(tmp_path / "viggo")
    out = tmp_path / "new" / "out"
    done = data("viggo", "--data", str(source), "--out", str(out), "--train-rows", "7")
    assert (done.code, done.err) == (0, "")
    assert "viggo from viggo" in done.out
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json",
        "test.jsonl",
        "train.jsonl",
        "upload",
        "validation.jsonl",
    ]


def test_json_output_is_the_card(data: Data, tmp_path: Path) -> None:
    done = data("sql", "--source", "sample", "--out", "out", "-o", "json", *FEW)
    assert done.code == 0
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "card.json").read_text())


def test_prepared_data_is_a_source(data: Data, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert data("sql", "--out", str(out), "--train-rows", "5", "--test-rows", "3").code == 0
    assert detect("sql", out) == "prepared"
    rows = read_part("sql", "prepared", out, "test")
    assert len(rows) == 3
    assert all((out / row.fields["database"]).is_file() for row in rows)


def test_a_directory_that_is_not_empty_is_left_unchanged(data: Data, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    done = data("sql", "--out", ".")
    assert done.code == 2
    assert "not an empty directory" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_the_docs_show_every_task() -> None:
    assert {command.split()[1] for command in COMMANDS} == set(WRITE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_docs_works(data: Data, tmp_path: Path, command: str) -> None:
    _, *words = shlex.split(command)
    if "--data" in words:
        words[words.index("--data") + 1] = str(WRITE[words[0]](tmp_path / "data"))
    done = data(*words)
    assert done.code == 0, done.err
    card = json.loads((tmp_path / words[words.index("--out") + 1] / "card.json").read_text())
    assert "-o" not in words or json.loads(done.out) == card
    if "--train-rows" in words:
        assert card["parts"]["train"]["rows"] == int(words[words.index("--train-rows") + 1])


def test_row_limits_and_seed_choose_the_rows(data: Data) -> None:
    cards = []
    for seed in ("0", "1"):
        done = data("sql", "--out", f"out-{seed}", *FEW, "--seed", seed, "-o", "json")
        cards.append(json.loads(done.out))
    assert [{part: rows["rows"] for part, rows in card["parts"].items()} for card in cards] == [
        {"train": 3, "validation": 1, "test": 2}
    ] * 2
    assert cards[0]["parts"]["test"]["sha256"] != cards[1]["parts"]["test"]["sha256"]


def test_help_and_docs_state_the_same_default_rows(data: Data) -> None:
    shown = " ".join(data("--help").out.split())
    for part, rows in DEFAULT_ROWS.items():
        [text] = re.findall(rf"--{part}-rows INTEGER\S* (.*?\])", shown)
        assert f"sample: {rows}]" in text
        assert f"--{part}-rows" in DOC.read_text(encoding="utf-8")
    train, validation, test = DEFAULT_ROWS.values()
    assert f"Defaults: {train}, {validation} and {test}" in DOC.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "what", "step"),
    [
        (("viggo",), 2, "no directory is named", "--data DIR"),
        (("viggo", "--data", "absent"), 12, "--data absent: there is no such directory", "correct the path"),
        (("sql", "--source", "viggo", "--data", "."), 2, "--source viggo", "one of spider"),
        (("viggo", "--source", "spider", "--data", "."), 2, "--source spider", "one of viggo"),
        (("viggo", "--source", "sample"), 2, "--source sample", "one of viggo"),
        (("sql", "--train-rows", "99999"), 11, "--train-rows: 99999 asked for", "correct what is listed"),
    ],
)
def test_an_error_is_one_message_with_a_next_step_and_writes_nothing(
    data: Data, tmp_path: Path, arguments: tuple[str, ...], code: int, what: str, step: str
) -> None:
    done = data(*arguments, "--out", "out")
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.startswith("error: ")
    assert what in done.err
    assert re.search(rf"^next: .*{re.escape(step)}", done.err, re.M), done.err
    assert "see --help of the command" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [("--train-rows", "0"), ("--validation-rows", "-1"), ("--seed", "-1"), ("-o", "table")]
)
def test_a_value_out_of_range_is_exit_2_and_names_the_option(data: Data, wrong: tuple[str, str]) -> None:
    done = data("sql", "--out", "out", *wrong)
    assert done.code == 2
    assert done.err.startswith("Usage: launcher data ")
    assert wrong[0] in done.err


@pytest.mark.parametrize("place", ["full", "a-file", "a-file/out"])
def test_a_directory_that_cannot_be_written_is_an_error_that_names_out(
    data: Data, tmp_path: Path, place: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    (tmp_path / "a-file").touch()
    done = data("sql", *FEW, "--out", place)
    assert done.code in (2, 15)
    assert done.err.startswith(f"error: --out {place}: ")
    assert re.search(r"^next: .*--out DIR", done.err, re.M)
