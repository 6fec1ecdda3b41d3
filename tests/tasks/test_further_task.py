"""A further task is a folder: copied into jobs/tasks, or named by its path, it goes through a whole run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import Launcher

from launcher.resolve.resolver import resolve
from launcher.spec.loading import load
from launcher.spec.tasks import built_in_names

ROOT = Path(__file__).parent.parent.parent
LETTERS = Path(__file__).parent / "letters"
TINY: dict[str, Any] = {
    "model": "random-llama",
    "prompt": "plain",
    "hardware": {"device": "cpu", "threads": 1, "memory_gib": 2},
    "generation": {"batch_rows": 4, "max_new_tokens": 8, "dtype": "float32"},
}
UNTUNED = {"name": "untuned", "kind": "prompted", **TINY}
LORA = {
    "name": "lora",
    "kind": "lora",
    **TINY,
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
    "training": {
        "steps": 1,
        "batch_rows": 2,
        "micro_batch_tokens": 256,
        "warmup_steps": 0,
        "dtype": "float32",
    },
}


def write_experiment(directory: Path, task: str, contender: dict[str, Any], **changes: Any) -> Path:
    path = directory / "letters.yaml"
    document = {
        "name": "letters",
        "task": task,
        "data": {"test_rows": 4},
        "contenders": [contender],
        **changes,
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.smoke
def test_a_folder_added_to_jobs_tasks_is_a_task_with_no_other_file_changed(tmp_path: Path) -> None:
    install = tmp_path / "install"
    for package in ("launcher", "jobs", "charts"):
        shutil.copytree(ROOT / package, install / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(LETTERS, install / "jobs" / "tasks" / "letters")
    experiment = write_experiment(tmp_path, "letters", UNTUNED)
    launcher = Launcher(tmp_path)
    environment = {**launcher.environment, "PYTHONPATH": str(install)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    planned = json.loads(run("plan", str(experiment), "-o", "json"))
    assert planned["plan"]["experiment"]["data"]["source"] == "generated"
    assert planned["plan"]["stages"][0]["settings"]["settings"] == {"hint": True}
    verdict = json.loads(run("submit", str(experiment), "--target", "local", "-o", "json"))
    results = verdict["results"]
    assert results["task"] == "letters"
    assert results["primary"] == "in_place"
    (contender,) = results["contenders"]
    assert contender["measures"]["in_place"]["kind"] == "mean"
    assert contender["measures"]["letters"]["kind"] == "ratio"
    assert "kind" not in contender["measures"]["whole"]
    assert "The words are random." in results["caveats"]
    assert "on average" in verdict["summary"]
    assert "%" not in verdict["summary"]
    assert verdict["costs"][0]["usd_per_correct_answer"] is None


@pytest.mark.smoke
def test_a_folder_of_the_users_own_is_refused_without_allow_code_and_runs_with_it(launcher: Launcher) -> None:
    shutil.copytree(LETTERS, launcher.home / "mine" / "letters", ignore=shutil.ignore_patterns("__pycache__"))
    experiment = write_experiment(launcher.home / "mine", "./letters", LORA, settings={"hint": False})
    planned = launcher("plan", str(experiment))
    assert planned.returncode == 0, planned.stderr
    digest = planned.stdout.partition("sha256 ")[2].partition(";")[0]

    refused = launcher("submit", str(experiment), "--target", "local")
    assert refused.returncode == 2
    assert f"--allow-code {digest}" in refused.stderr
    assert not (launcher.store / "runs").exists()
    other = launcher("submit", str(experiment), "--target", "local", "--allow-code", "0" * 64)
    assert other.returncode == 2
    assert digest in other.stderr

    verdict = launcher.json(
        "submit", str(experiment), "--target", "local", "--allow-code", digest[:12], "-o", "json"
    )
    assert verdict["results"]["task"] == "letters"
    assert verdict["results"]["caveats"][0] == "The words are random."
    again = launcher("submit", str(experiment), "--target", "local")
    assert again.returncode == 0, again.stderr

    folder = launcher.home / "mine" / "letters"
    verified = launcher("verify", verdict["run_id"], "--code", str(folder))
    assert verified.returncode == 0, verified.stderr
    unknown = launcher("verify", verdict["run_id"])
    assert "not recomputed: this code is not in" in unknown.stdout


def test_a_plan_of_a_folder_runs_none_of_its_code_and_names_no_path(tmp_path: Path) -> None:
    shutil.copytree(LETTERS, tmp_path / "letters")
    for name in ("prompt", "source", "scorer"):
        (tmp_path / "letters" / f"{name}.py").write_text("raise SystemExit('the code of the task ran')\n")
    launcher = Launcher(tmp_path)
    done = launcher("plan", str(write_experiment(tmp_path, "./letters", UNTUNED)), "-o", "json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert str(tmp_path) not in json.dumps(plan)
    by_name = {stage["name"]: sorted(stage["inputs"]) for stage in plan["stages"]}
    code = [f"task/{name}" for name in ("README.md", "prompt.py", "scorer.py", "source.py", "task.yaml")]
    assert by_name["prepare"] == by_name["score-untuned"] == code
    assert by_name["predict-untuned"] == []
    assert by_name["report"] == ["task/task.yaml"]


def test_the_keys_of_a_folder_depend_on_its_content_not_on_its_path(tmp_path: Path) -> None:
    from launcher.spec.planner import plan

    def run_id(place: str, scorer: str = "") -> str:
        directory = tmp_path / place
        shutil.copytree(LETTERS, directory / "letters", ignore=shutil.ignore_patterns("__pycache__"))
        with (directory / "letters" / "scorer.py").open("a") as stream:
            stream.write(scorer)
        resolved = resolve(load(str(write_experiment(directory, "./letters", UNTUNED))))
        return plan(resolved.experiment, resolved.lock).run_id

    assert run_id("here") == run_id("there") != run_id("changed", "\n# changed\n")


def test_a_stage_with_user_code_gets_no_key_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.spec.planner import plan
    from launcher.store import DirectoryStore
    from launcher.targets.local.environment import stage_environment

    resolved = resolve(load(str(write_experiment(tmp_path, str(LETTERS), UNTUNED))))
    made = plan(resolved.experiment, resolved.lock)
    keys = ("HF_TOKEN", "OPENAI_API_KEY", "SOME_OTHER_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN")
    for name in keys:
        monkeypatch.setenv(name, "secret")
    for stage in ("prepare", "score-untuned"):
        environment = stage_environment(made.stage(stage), DirectoryStore(tmp_path / "store").address)
        assert "secret" not in environment.values()
        assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "./nowhere"}, "nowhere/task.yaml: cannot read"),
        ({"settings": {"hint": 3}}, "settings.hint: must be of type bool (got 3)"),
        ({"settings": {"shots": 3}}, "settings.shots: task 'letters' has no such setting; it has hint"),
        ({"data": {"source": "sample"}}, "data.source: task 'letters' takes generated, not 'sample'"),
        ({"scorers": ["exact"]}, "scorers: task 'letters' brings its own; leave scorers out"),
        (
            {"task": "poetry"},
            f"task: no task 'poetry'; there are {', '.join(built_in_names())}, or name a folder",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_the_task_is_named_before_a_run(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    from launcher.outcome import Failure

    changes = dict(changes)
    task = changes.pop("task", str(LETTERS))
    experiment = write_experiment(tmp_path, task, UNTUNED, **changes)
    with pytest.raises(Failure) as caught:
        load(str(experiment))
    assert problem in caught.value.text()


def test_a_folder_with_a_built_in_name_is_refused(tmp_path: Path) -> None:
    from launcher.outcome import Failure

    folder = tmp_path / "mine"
    folder.mkdir()
    facts = (LETTERS / "task.yaml").read_text().replace("name: letters", "name: sql")
    (folder / "task.yaml").write_text(facts)
    with pytest.raises(Failure, match="1 problem") as caught:
        load(str(write_experiment(tmp_path, "./mine", UNTUNED)))
    assert "'sql' is the name of a built-in task" in caught.value.problems[0]
