"""A run on S3-compatible storage: the same results, readable from another machine, verified, cleared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import Place, make_place
from s3_servers import Server


class Machine:
    """The launcher as a user runs it, with a home of its own."""

    def __init__(self, home: Path, address: str) -> None:
        home.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNEYARD", "XDG", "HF_"))}
        self.environment = {
            **kept,
            "HOME": str(home),
            "TUNEYARD_STORE": address,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.home = home

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=self.environment,
            cwd=self.home,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))


@pytest.fixture
def place(tmp_path: Path, servers: Callable[[str], Server]) -> Place:
    return make_place("rclone", tmp_path, servers)


@pytest.mark.smoke
def test_a_smoke_run_lives_in_a_bucket(place: Place, tmp_path: Path) -> None:
    address = f"s3://{place.bucket}/team?endpoint_url={place.endpoint}"
    here, there = Machine(tmp_path / "here", address), Machine(tmp_path / "there", address)
    verdict = here.json("submit", "sql", "--profile", "smoke", "--target", "local")
    run = verdict["run_id"]
    assert there.json("submit", "sql", "--profile", "smoke", "--target", "local") == verdict
    (listed,) = there.json("list")
    assert listed["run"] == run
    assert listed["state"] == "succeeded"
    assert listed["size_bytes"] > 0
    assert "report" in there("logs", run, "--stage", "report")
    assert there("report", run).startswith("#")
    checks = there.json("verify", run)
    assert all(check["ok"] for check in checks)
    assert checks[-1]["what"] == "results digest"
    fetched = there.json("artifacts", run, "--file", "adapter*", "--fetch", str(tmp_path / "out"))
    assert {Path(row["path"]).name for row in fetched} == {"adapter_config.json", "adapter_model.safetensors"}
    _spoil_the_answers(place)
    assert "WRONG" in Machine(tmp_path / "third", address)("verify", run, code=19)


def _spoil_the_answers(place: Place) -> None:
    client = place.client()
    key = next(stat.key for stat in client.objects("team/stages/") if "predictions.jsonl" in stat.key)
    data = client.get(key).data
    client.call("put_object", Bucket=place.bucket, Key=key, Body=data.replace(b'"finish"', b'"Finish"', 1))
