"""A lock or a stored plan cannot make pip run code: only PACKAGE==VERSION reaches it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_store import HostileStore
from launching import Launcher

_SETUP = """
import pathlib
pathlib.Path({marker!r}).write_text("the build backend ran")
from setuptools import setup
setup(name="evil", version="1.0")
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that a package's build writes if it is run."""
    package = tmp_path / "evil"
    package.mkdir()
    ran = tmp_path / "ran"
    (package / "setup.py").write_text(_SETUP.format(marker=str(ran)))
    return ran


def hostile_source(tmp_path: Path, form: str) -> dict[str, Any]:
    directory = tmp_path / "evil"
    (tmp_path / "requirements.txt").write_text(f"{directory}\n")
    requirement = {
        "url": f"evil @ file://{directory}",
        "path": str(directory),
        "option": f"--requirement={tmp_path}/requirements.txt",
    }[form]
    return {"kind": "package", "requirement": requirement, "member": "a.gguf", "sha256": "0" * 64}


@pytest.mark.parametrize("form", ["url", "path", "option"])
def test_a_lock_runs_no_build_backend(form: str, marker: Path, launcher: Launcher, tmp_path: Path) -> None:
    lock = tmp_path / "lock.json"
    assert launcher("plan", "sql", "--profile", "smoke", "--lock", str(lock)).returncode == 0
    value = json.loads(lock.read_text())
    value["models"]["random-llama"]["source"] = hostile_source(tmp_path, form)
    lock.write_text(json.dumps(value))
    done = launcher("submit", "sql", "--profile", "smoke", "--target", "local", "--lock", str(lock))
    assert not marker.exists()
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["url", "option"])
def test_a_stored_plan_runs_no_build_backend_on_retry(
    form: str, marker: Path, launcher: Launcher, tmp_path: Path
) -> None:
    bucket = HostileStore(launcher)
    plan = bucket.plan("sql", "--profile", "smoke")
    fetch = next(stage for stage in plan["stages"] if stage["kind"] == "fetch")
    fetch["settings"]["source"] = hostile_source(tmp_path, form)
    plan["lock"]["models"]["random-llama"]["source"] = hostile_source(tmp_path, form)
    run_id = bucket.add_run(bucket.sign(plan))
    done = launcher("retry", run_id)
    assert not marker.exists()
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
