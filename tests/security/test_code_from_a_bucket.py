"""`verify` runs no code of the bucket: a scorer of a run's own has to be at hand, byte for byte the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from launching import Launcher

KEY = "sk-the-victims-own"
_SCORER = """
import json, os, pathlib
pathlib.Path({marker!r}).write_text(json.dumps(dict(os.environ)))

def score(answer, gold, row):
    return True
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file to which the author's scorer writes the environment that it sees."""
    return tmp_path / "seen"


@pytest.fixture
def run_id(launcher: Launcher, tmp_path: Path, marker: Path) -> str:
    """A finished run of another author, whose scorer is code."""
    author = tmp_path / "author"
    data = author / "data"
    data.mkdir(parents=True)
    (author / "mine.py").write_text(_SCORER.format(marker=str(marker)))
    rows = [
        json.dumps(
            {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "a"}]}
        )
        for n in range(6)
    ]
    (data / "train.jsonl").write_text("\n".join(rows[:4]) + "\n")
    (data / "test.jsonl").write_text("\n".join(rows[4:]) + "\n")
    contender = {
        "name": "open",
        "kind": "prompted",
        "model": "random-llama",
        "hardware": {"device": "cpu", "threads": 1, "memory_gib": 2},
        "generation": {"batch_rows": 2, "max_new_tokens": 2, "dtype": "float32"},
    }
    experiment = {"format": 1, "name": "theirs", "task": "chat", "data": {"source": "chat"}}
    (author / "theirs.yaml").write_text(
        yaml.safe_dump({**experiment, "scorers": ["mine:score"], "contenders": [contender]})
    )
    made = launcher("submit", "theirs.yaml", "--target", "local", "--data", "data", "-o", "name", cwd=author)
    assert made.returncode == 0, made.stderr
    run_id = made.stdout.strip()
    assert launcher.json("status", run_id, "-o", "json")  # it exists before the victim looks at it
    done = launcher("why", run_id)
    for _ in range(600):
        if "has finished" in (done := launcher("why", run_id)).stdout:
            break
    assert "has finished" in done.stdout
    marker.unlink()
    return run_id


@pytest.mark.smoke
def test_verify_runs_no_scorer_that_is_not_here(
    run_id: str, marker: Path, launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    verified = launcher("verify", run_id, cwd=victim)
    assert not marker.exists()
    assert verified.returncode != 0
    assert "mine.py" in verified.stdout

    # A user who has the same file may run it.
    assert launcher("verify", run_id, cwd=tmp_path / "author").returncode == 0
    assert marker.exists()


@pytest.mark.smoke
def test_retry_runs_no_scorer_that_this_user_has_not_allowed(
    run_id: str, marker: Path, launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = launcher.store / "runs" / run_id / "attempts" / "1"
    outcome = json.loads((attempt / "outcome.json").read_text())
    failure = {"reason": "cancelled", "what": "cancelled", "where": "", "problems": [], "next": ""}
    (attempt / "outcome.json").write_text(json.dumps({**outcome, "reason": "cancelled", "failure": failure}))
    for stage in json.loads((attempt / "plan.json").read_text())["stages"]:
        if stage["kind"] == "score":
            shutil.rmtree(launcher.store / "stages" / stage["key"])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    victim = Launcher(tmp_path / "victim")
    victim.home.mkdir()
    done = victim("retry", run_id, "--store", str(launcher.store))
    assert not marker.exists()
    assert done.returncode != 0
    assert "--allow-code" in done.stderr
