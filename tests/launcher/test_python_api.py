"""The Python API handles data, locks and names as the command line does."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import load, make_plan
from launcher.cli.main import main
from launcher.outcome import Failure, Reason
from launcher.resolve.resolver import read_lock


def test_a_data_directory_replaces_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("spider_create_context_train.json", "spider_create_context_val.json"):
        (tmp_path / name).write_text("[]")
    plan = make_plan(load("sql", profile="smoke"), data=tmp_path)
    assert plan.experiment["data"]["source"] == "spider-create-context"
    assert main(["plan", "sql", "--profile", "smoke", "--data", str(tmp_path), "-o", "name"]) == 0
    assert capsys.readouterr().out == f"{plan.run_id}\n"


def test_a_lock_is_written_once_and_then_read(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    first = make_plan(load("sql", profile="smoke"), lock=path)
    before = path.read_bytes()
    read_lock(path)
    assert make_plan(load("sql", profile="smoke"), lock=path) == first
    assert path.read_bytes() == before
    path.write_text("not a lock")
    with pytest.raises(Failure):
        make_plan(load("sql", profile="smoke"), lock=path)
    make_plan(load("sql", profile="smoke"), lock=path, relock=True)
    assert path.read_bytes() == before


def test_relock_without_a_lock_is_a_usage_error() -> None:
    with pytest.raises(Failure) as caught:
        make_plan(load("sql", profile="smoke"), relock=True)
    assert caught.value.reason is Reason.USAGE
