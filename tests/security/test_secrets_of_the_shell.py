"""A stage sees no secret of the shell that it does not need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from launching import Launcher

SECRETS = {
    "GITHUB_TOKEN": "ghp-canary",
    "DATABASE_URL": "postgres://user:canary@host/db",
    "VAULT_TOKEN": "canary",
    "OPENAI_API_KEY": "sk-canary",
    "HF_TOKEN": "hf-canary",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "PIP_INDEX_URL": "https://user:canary@index.example/simple",
}


@pytest.mark.smoke
def test_code_of_a_run_sees_no_secret_of_the_shell(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.json"
    (tmp_path / "mine.py").write_text(
        "import json, os, pathlib\n"
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps(dict(os.environ)))\n\n\n"
        "def score(answer, gold, row):\n    return True\n"
    )
    data = tmp_path / "data"
    data.mkdir()
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]}
    for part in ("train", "test"):
        (data / f"{part}.jsonl").write_text(json.dumps(row) + "\n")
    contender = {
        "name": "open",
        "kind": "prompted",
        "model": "random-llama",
        "hardware": {"device": "cpu", "threads": 1, "memory_gib": 2},
        "generation": {"batch_rows": 1, "max_new_tokens": 2, "dtype": "float32"},
    }
    experiment = {"format": 1, "name": "mine", "task": "chat", "data": {"source": "chat"}}
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({**experiment, "scorers": ["mine:score"], "contenders": [contender]})
    )
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    done = launcher("submit", "mine.yaml", "--target", "local", "--data", "data", "-o", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = json.loads(seen.read_text())
    assert "PATH" in environment
    assert sorted(SECRETS.keys() & environment.keys()) == []
    assert "canary" not in seen.read_text()
