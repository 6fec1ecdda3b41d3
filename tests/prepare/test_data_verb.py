"""`launcher data` as a user types it: what docs/data.md shows works, and what is wrong is told as by every verb."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import data_sets
import pytest
from launching import Launcher

from jobs.tasks.sql.sample.generate import DEFAULT_ROWS

DOC = Path(__file__).parent.parent.parent / "docs" / "data.md"
COMMANDS = re.findall(r"^launcher (data .*?)(?:\s+#.*)?$", DOC.read_text(encoding="utf-8"), re.M)
#: A few rows, so that nobody waits for what is not looked at.
FEW = ("--train-rows", "3", "--validation-rows", "1", "--test-rows", "2")

WRITE: dict[str, Callable[[Path], Path]] = {
    "sql": data_sets.write_spider,
    "viggo": lambda path: data_sets.write_viggo(path, train=481),
    "chat": data_sets.write_chat,
}


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    home = tmp_path / "home"
    home.mkdir()
    return Launcher(home)


def test_the_docs_show_every_task() -> None:
    assert {command.split()[1] for command in COMMANDS} == set(WRITE)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_docs_show_works_as_it_stands(launcher: Launcher, command: str) -> None:
    words = shlex.split(command)
    if "--data" in words:
        place = words.index("--data") + 1
        words[place] = str(WRITE[words[1]](launcher.home / "data"))
    done = launcher(*words)
    assert done.returncode == 0, done.stderr
    out = launcher.home / words[words.index("--out") + 1]
    card = json.loads((out / "card.json").read_text())
    assert "-o" not in words or json.loads(done.stdout) == card
    if "--train-rows" in words:
        assert card["parts"]["train"]["rows"] == int(words[words.index("--train-rows") + 1])


def test_the_options_choose_rows(launcher: Launcher) -> None:
    cards = [
        launcher.json("data", "sql", "--out", f"out-{seed}", *FEW, "--seed", seed, "-o", "json")
        for seed in ("0", "1")
    ]
    assert [{part: rows["rows"] for part, rows in card["parts"].items()} for card in cards] == [
        {"train": 3, "validation": 1, "test": 2}
    ] * 2
    assert cards[0]["parts"]["test"]["sha256"] != cards[1]["parts"]["test"]["sha256"]


def test_the_help_says_of_sampling_what_the_docs_say(launcher: Launcher) -> None:
    shown = " ".join(launcher("data", "--help").stdout.split())
    for part, rows in DEFAULT_ROWS.items():
        [told] = re.findall(rf"--{part}-rows INTEGER\S* (.*?\])", shown)
        assert f"sample: {rows}]" in told
        assert f"--{part}-rows" in DOC.read_text(encoding="utf-8")
    train, validation, test = DEFAULT_ROWS.values()
    assert f"Defaults: {train}, {validation} and {test}" in DOC.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "told", "step"),
    [
        (("viggo",), 2, "no directory is named", "--data DIR"),
        (("viggo", "--data", "absent"), 12, "--data absent: there is no such directory", "correct the path"),
        (("sql", "--source", "viggo", "--data", "."), 2, "--source viggo", "one of spider"),
        (("viggo", "--source", "sample"), 2, "--source sample", "one of viggo"),
        (("sql", "--train-rows", "99999"), 11, "--train-rows: 99999 asked for", "correct what is listed"),
    ],
)
def test_what_is_wrong_is_told_as_by_every_verb(
    launcher: Launcher, arguments: tuple[str, ...], code: int, told: str, step: str
) -> None:
    said = launcher("data", *arguments, "--out", "out")
    assert (said.returncode, said.stdout) == (code, ""), said.stderr
    assert said.stderr.startswith("error: ")
    assert told in said.stderr
    assert re.search(rf"^next: .*{re.escape(step)}", said.stderr, re.M), said.stderr
    assert "see --help of the command" not in said.stderr


@pytest.mark.parametrize(
    "wrong", [("--train-rows", "0"), ("--validation-rows", "-1"), ("--seed", "-1"), ("-o", "table")]
)
def test_a_value_that_cannot_be_is_refused_by_the_verb_itself(
    launcher: Launcher, wrong: tuple[str, str]
) -> None:
    said = launcher("data", "sql", "--out", "out", *wrong)
    assert said.returncode == 2
    assert said.stderr.startswith("Usage: launcher data ")
    assert wrong[0] in said.stderr


@pytest.mark.parametrize("place", ["full", "a-file", "a-file/out"])
def test_a_place_that_cannot_be_written_is_told_with_the_option_that_names_it(
    launcher: Launcher, place: str
) -> None:
    (launcher.home / "full").mkdir()
    (launcher.home / "full" / "precious").touch()
    (launcher.home / "a-file").touch()
    said = launcher("data", "sql", *FEW, "--out", place)
    assert said.returncode in (2, 15)
    assert said.stderr.startswith(f"error: --out {place}: ")
    assert re.search(r"^next: .*--out DIR", said.stderr, re.M)
