"""The files under examples/ run as examples/README.md says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launching import Launcher

from launcher.spec import site

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_every_example_is_listed_in_the_readme() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".py")]
    assert files
    assert [name for name in files if f"({name})" not in listed] == []


@pytest.mark.smoke
def test_a_task_without_code_runs_to_a_verdict(launcher: Launcher) -> None:
    verdict = launcher.json(
        *("submit", str(EXAMPLES / "capitals.yaml"), "--target", "local", "-o", "json"),
        *("--data", str(EXAMPLES / "capitals")),
    )
    questions = (EXAMPLES / "capitals" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert verdict["results"]["data"]["rows"]["test"] == len(questions) == 4
    assert [one["name"] for one in verdict["results"]["contenders"]] == ["untuned", "lora"]
    assert verdict["results"]["primary"] == "exact"


@pytest.mark.smoke
def test_the_python_api_example_prints_the_verdict_of_its_run(launcher: Launcher) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "python_api.py"), str(launcher.store)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**launcher.environment, "PYTHONPATH": str(ROOT)},
        cwd=launcher.home,
    )
    assert done.returncode == 0, done.stderr
    planned, summary = done.stdout.strip().splitlines()
    run_id = planned.partition(":")[0]
    assert [run["run"] for run in launcher.json("list", "-o", "json")] == [run_id]
    assert "of 8 sample questions" in summary


def test_a_run_is_rendered_for_the_example_site(launcher: Launcher) -> None:
    facts = site.load(EXAMPLES / "site.yaml")
    done = launcher("render", "sql", "--profile", "smoke", "--site", str(EXAMPLES / "site.yaml"))
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    assert {item["metadata"]["namespace"] for item in objects} == {facts.namespace}
    images = {word for word in done.stdout.split() if word.startswith("registry.example.com/")}
    assert images == {facts.images.conductor}
