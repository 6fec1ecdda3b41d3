"""Stores of earlier versions stay readable.

`tests/data/recorded_store` was written by the version before records were typed: a run that succeeded
(sql-6de6da13) and one whose training failed (sql-81a3d859). Only JSON and logs are kept, no weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_command_line import Run, run

from launcher.costs import receipt
from launcher.outcome import DISPOSITIONS, Reason
from launcher.runs import verdict
from launcher.runs.submission import continue_run
from launcher.spec.plan import parse
from launcher.spec.site import Site
from launcher.spec.stages import VERSIONS
from launcher.store import DirectoryStore
from launcher.store.runs import Attempt, attempts, read_plan, view
from launcher.targets.local import target as local_target

__all__ = ["run"]

RECORDED = Path(__file__).parents[1] / "data" / "recorded_store"
SUCCEEDED, FAILED = "sql-6de6da13", "sql-81a3d859"


@pytest.fixture
def recorded(tmp_path: Path) -> DirectoryStore:
    shutil.copytree(RECORDED, tmp_path / "recorded")
    return DirectoryStore(tmp_path / "recorded")


def test_list_shows_both_runs(run: Run, recorded: DirectoryStore) -> None:
    said = run("list", "-o", "json", "--store", recorded.address)
    rows = {row["run"]: row for row in json.loads(said.out)}
    assert (rows[SUCCEEDED]["state"], rows[SUCCEEDED]["stages"]) == ("succeeded", "8/8")
    assert (rows[FAILED]["state"], rows[FAILED]["stages"]) == ("bad-data", "4/8")
    assert rows[SUCCEEDED]["verdict"].startswith(("lora answers", "untuned answers"))
    assert rows[SUCCEEDED]["opened_at"] > 0


def test_report_is_rendered(run: Run, recorded: DirectoryStore) -> None:
    said = run("report", SUCCEEDED, "--store", recorded.address)
    assert said.code == 0
    assert said.out.startswith(f"# {SUCCEEDED}\n")
    assert "| train-lora-s1 | cpu |" in said.out.replace("\\", "")
    assert run("report", FAILED, "--store", recorded.address).code == DISPOSITIONS[Reason.NOT_FOUND].exit_code


def test_artifacts_are_listed(run: Run, recorded: DirectoryStore) -> None:
    said = run("artifacts", SUCCEEDED, "--stage", "train", "-o", "name", "--store", recorded.address)
    assert "train-lora-s1/adapter_model.safetensors" in said.out.splitlines()


@pytest.mark.parametrize("verb", ["status", "why"])
def test_failure_is_shown(run: Run, recorded: DirectoryStore, verb: str) -> None:
    said = run(verb, FAILED, "--store", recorded.address)
    assert said.code == 0
    assert "no training row has at most 16 tokens" in said.out


def test_status_as_json_has_the_recorded_values(run: Run, recorded: DirectoryStore) -> None:
    said = run("status", FAILED, "-o", "json", "--store", recorded.address)
    document = json.loads(said.out)
    attempt = recorded.root / f"runs/{FAILED}/attempts/1"
    assert document["outcome"] == json.loads((attempt / "outcome.json").read_bytes())
    (training,) = (stage for stage in document["stages"] if stage["name"] == "train-lora-s1")
    recorded_end = json.loads((attempt / "ends/train-lora-s1-t1.json").read_bytes())
    assert training["tries"][0]["end"] == recorded_end


def test_receipt_and_verdict_have_the_recorded_values(recorded: DirectoryStore) -> None:
    attempt = Attempt(recorded, SUCCEEDED, 1)
    made = receipt.build(attempt.plan, recorded, attempt)
    assert made.to_json() == attempt.get("receipt.json")
    assert verdict.read(attempt.get("verdict.json")).receipt == made


def test_retry_opens_another_attempt_and_keeps_finished_stages(
    run: Run, recorded: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    for stage in read_plan(recorded, FAILED).stages:
        monkeypatch.setitem(VERSIONS, stage.kind, stage.version)
    monkeypatch.setattr(local_target, "require_this_machine", lambda *_: None)
    monkeypatch.setattr(local_target, "ensure_conductor", lambda *given: started.append(given[2]))
    said = run("retry", FAILED, "--detach", "--store", recorded.address)
    assert (said.code, said.out.strip()) == (0, FAILED)
    assert attempts(recorded, FAILED) == [1, 2]
    assert started == [2]
    finished = {status.stage.name for status in view(recorded, FAILED).stages if status.state == "finished"}
    assert finished == {"fetch-untuned", "prepare", "predict-untuned", "score-untuned"}


def test_retry_of_a_run_of_another_stage_version_is_refused(
    run: Run, recorded: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = {stage.version for stage in read_plan(recorded, FAILED).stages if stage.kind == "score"}
    monkeypatch.setitem(VERSIONS, "score", version + 1)
    said = run("retry", FAILED, "--detach", "--store", recorded.address)
    assert said.code == DISPOSITIONS[Reason.VERSION_MISMATCH].exit_code
    assert f"score: version {version}, now {version + 1}" in said.err
    assert "next: submit the experiment again" in said.err
    assert attempts(recorded, FAILED) == [1]


def test_submitting_the_same_run_again_continues_it(recorded: DirectoryStore) -> None:
    before = (recorded.root / f"runs/{FAILED}/plan.json").read_bytes()
    plan = parse(before, "plan.json")
    submission = continue_run(plan, recorded, target="local", site=Site())
    assert submission.open().number == 1
    assert (recorded.root / f"runs/{FAILED}/plan.json").read_bytes() == before
    assert read_plan(recorded, FAILED) == plan


def test_recorded_stages_know_contender_and_seed(recorded: DirectoryStore) -> None:
    stages = {stage.name: (stage.contender, stage.seed) for stage in read_plan(recorded, SUCCEEDED).stages}
    assert stages["train-lora-s1"] == ("lora", 1)
    assert stages["predict-untuned"] == ("untuned", None)
    assert stages["report"] == (None, None)
