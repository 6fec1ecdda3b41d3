"""Data that `prepare` would refuse is refused by `plan` and `submit` already: no weights are fetched for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launching import Launcher

from launcher.costs.token_counts import count_tokens
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.resolve.resolver import resolve
from launcher.spec.loading import load
from launcher.spec.planner import plan

CHAT = """
name: support
task: chat
scorers: [exact]
data: {source: chat}
contenders: [{name: untuned, kind: prompted, model: random-llama}]
"""


def write_viggo(directory: Path, rows: int, *, header: str = "mr,ref") -> Path:
    directory.mkdir()
    for part in ("train", "valid", "test"):
        lines = [f'"inform(name[{part} {n}])",{part} {n} is a game.\n' for n in range(rows)]
        (directory / f"viggo-{part}.csv").write_text(f"{header}\n{''.join(lines)}")
    return directory


def write_chat(directory: Path, bad: str) -> Path:
    directory.mkdir()
    good = json.dumps(
        {"messages": [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}]}
    )
    (directory / "train.jsonl").write_text(f"{good}\n{bad}\n")
    (directory / "test.jsonl").write_text(f"{good}\n")
    return directory


@pytest.mark.parametrize("verb", [("plan",), ("submit", "--target", "local")], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("rows", "header", "word"),
    [(5, "mr,ref", "data.train_rows: 24 asked for, the part has 5"), (30, "a,b", "viggo-train.csv:1:")],
    ids=["too few rows", "broken CSV"],
)
def test_plan_and_submit_refuse_bad_data(
    launcher: Launcher, tmp_path: Path, verb: tuple[str, ...], rows: int, header: str, word: str
) -> None:
    directory = write_viggo(tmp_path / "mine", rows, header=header)
    done = launcher(*verb, "viggo", "--profile", "smoke", "--data", str(directory))
    assert done.returncode == DISPOSITIONS[Reason.BAD_DATA].exit_code, done.stderr
    assert word in done.stderr
    # The user's own directory is named, not the one of links that it was read through.
    assert f"error: {directory}: " in done.stderr
    assert "\nnext: correct the data" in done.stderr
    assert launcher("list", "-o", "name").stdout == ""


def test_a_malformed_row_is_named_with_its_line(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "chat.yaml").write_text(CHAT)
    directory = write_chat(tmp_path / "chat", '{"messages": [')
    done = launcher("plan", "chat.yaml", "--data", str(directory))
    assert done.returncode == DISPOSITIONS[Reason.BAD_DATA].exit_code
    assert "train.jsonl:2" in done.stderr


def test_plan_counts_tokens_of_good_data(launcher: Launcher, tmp_path: Path) -> None:
    directory = write_viggo(tmp_path / "mine", 30)
    done = launcher("plan", "viggo", "--profile", "smoke", "--data", str(directory))
    assert done.returncode == 0, done.stderr
    assert "data viggo: 24 training rows" in done.stdout


def test_data_on_another_machine_is_not_counted(tmp_path: Path) -> None:
    """With a lock alone the files are in the store, or on another machine."""
    directory = write_viggo(tmp_path / "mine", 5)
    wanted = load("viggo", profile="smoke")
    resolution = resolve(wanted, data_directory=directory)
    with pytest.raises(Failure) as caught:
        count_tokens(plan(resolution.experiment, resolution.lock), resolution.locations)
    assert caught.value.reason is Reason.BAD_DATA
    locked = resolve(wanted, locked=resolution.lock)
    assert count_tokens(plan(locked.experiment, locked.lock), locked.locations) is None
