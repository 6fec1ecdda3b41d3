"""`launcher verify`: a recomputation that fails is a check that is not ok; stdout has the checks only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_plan

from jobs import verify
from launcher.cli.main import main
from launcher.outcome import Failure, Reason
from launcher.store import DirectoryStore
from launcher.store.runs import Attempt


@pytest.fixture
def run_id(store: DirectoryStore) -> str:
    """A run that has succeeded, without any file."""
    plan = make_plan()
    store.put_json(f"runs/{plan.run_id}/plan.json", plan.model_dump(mode="json"))
    attempt = Attempt(store, plan.run_id, 1)
    attempt.put("request.json", {"format": 1, "opened_at": 1.0})
    attempt.put("verdict.json", {"format": 1, "results_digest": "a" * 64})
    return plan.run_id


def checks(
    store: DirectoryStore, run_id: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[Any], str]:
    code = main(["verify", run_id, "--store", str(store.root), "-o", "json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_equal_results_are_exit_0(
    store: DirectoryStore,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def recompute(*_: object) -> verify.Recomputed:
        print("step 1/1")
        return verify.Recomputed({"report": []}, "a" * 64)

    monkeypatch.setattr(verify, "recompute", recompute)
    code, found, err = checks(store, run_id, capsys)
    assert code == 0
    assert found == [
        {"what": "report recomputed", "ok": True, "found": "same"},
        {"what": "results digest", "ok": True, "found": "a" * 12},
    ]
    assert err == f"step 1/1\n{run_id}: 2 of 2 checks passed\n"


def test_other_results_are_exit_19_and_name_the_files(
    store: DirectoryStore,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        verify, "recompute", lambda *_: verify.Recomputed({"report": ["results.json"]}, "b" * 64)
    )
    code, found, _ = checks(store, run_id, capsys)
    assert code == 19
    assert [check["found"] for check in found] == [
        "results.json differ",
        f"{'b' * 12}, the verdict has {'a' * 12}",
    ]


def test_a_failed_recomputation_is_a_check_that_is_not_ok(
    store: DirectoryStore,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def recompute(*_: object) -> verify.Recomputed:
        raise Failure(Reason.VERSION_MISMATCH, "another version", next_step="use that one")

    monkeypatch.setattr(verify, "recompute", recompute)
    code, found, err = checks(store, run_id, capsys)
    assert code == 19
    assert found == [{"what": "results", "ok": False, "found": "could not be computed (exit code 18)"}]
    assert err.startswith("error: another version\nnext: use that one\n")


def test_digests_only_recomputes_nothing(
    store: DirectoryStore,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(verify, "recompute", None)
    assert main(["verify", run_id, "--digests-only", "--store", str(store.root)]) == 0
    assert capsys.readouterr().err == f"{run_id}: 0 of 0 checks passed\n"


def test_a_corrupt_file_is_exit_19_without_a_recomputation(
    store: DirectoryStore,
    run_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = make_plan().stages[0]
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "rows").write_text("rows")
    store.commit(f"stages/{stage.key}", directory, {})
    committed = store.root / "stages" / stage.key / "rows"
    committed.chmod(0o644)
    committed.write_text("wors")
    monkeypatch.setattr(verify, "recompute", None)
    code, [check], err = checks(store, run_id, capsys)
    assert (code, check["what"], check["ok"]) == (19, stage.name, False)
    assert "were not recomputed" in err


@pytest.mark.parametrize(
    ("recomputed", "confirmed"),
    [
        ({"a": 1, "b": [{"c": 0.5}]}, True),
        ({"a": 1, "b": [{"c": 0.5, "kind": "share"}], "new": None}, True),
        ({"a": 1, "b": [{"c": 0.5}, {"c": 0.5}]}, False),
        ({"a": 1, "b": [{"c": 0.6}]}, False),
        ({"a": True, "b": [{"c": 0.5}]}, False),
        ({"b": [{"c": 0.5}]}, False),
    ],
)
def test_keys_that_a_later_version_adds_do_not_contradict_a_run(recomputed: Any, confirmed: bool) -> None:
    assert verify.contains(recomputed, {"a": 1, "b": [{"c": 0.5}]}) is confirmed
