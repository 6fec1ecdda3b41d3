"""`launcher cancel` in a cluster leaves no running Jobs, whatever the state of the conductor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster
from tiny import make_plan

from launcher.cli.main import main
from launcher.manifests.labels import ATTEMPT_LABEL, RUN_LABEL
from launcher.outcome import Failure, Reason
from launcher.store import DirectoryStore
from launcher.store.runs import Attempt
from launcher.targets.cluster.client import Cluster


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    store, plan = DirectoryStore(tmp_path / "store"), make_plan()
    store.put_json(f"runs/{plan.run_id}/plan.json", plan.model_dump(mode="json"))
    attempt = Attempt(store, plan.run_id, 1)
    attempt.put("request.json", {"format": 1, "opened_at": 1.0, "target": "cluster"})
    return attempt


@pytest.fixture
def cluster(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    labels = {RUN_LABEL: attempt.run_id, ATTEMPT_LABEL: "1", "app.kubernetes.io/component": "conductor"}
    cluster.create({"kind": "Job", "metadata": {"name": "conductor", "uid": "u1", "labels": labels}})
    monkeypatch.setattr(Cluster, "connect", lambda *_args, **_options: cluster)
    return cluster


@pytest.fixture
def cancel(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "tuneyard").mkdir()
    (tmp_path / "tuneyard" / "site.yaml").write_text("format: 1\nnamespace: team\n")
    monkeypatch.setattr(
        sys, "argv", ["launcher", "cancel", attempt.run_id, "--store", str(tmp_path / "store")]
    )
    return main


def test_cancel_deletes_the_jobs_of_a_failed_conductor(
    attempt: Attempt, cluster: FakeCluster, cancel: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.end("conductor", 1)
    assert cancel() == 0
    assert cluster.deleted == ["conductor"]
    assert (attempt.outcome and attempt.outcome.reason) is Reason.CANCELLED
    assert (
        "the Job of its conductor had failed; it was deleted with the Jobs of its stages"
        in capsys.readouterr().err
    )


def test_second_cancel_deletes_what_the_first_could_not(
    attempt: Attempt,
    cluster: FakeCluster,
    cancel: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster.end("conductor", 1)

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise Failure(Reason.UNAUTHORIZED, "the API server does not let us in", where="here")

    with monkeypatch.context() as without:
        without.setattr(Cluster, "connect", refuse)
        assert cancel() == 0
    err = capsys.readouterr().err
    assert "the API server does not let us in" in err
    assert f"kubectl get jobs -l {RUN_LABEL}={attempt.run_id},{ATTEMPT_LABEL}=1" in err
    assert cancel() == 0
    assert cluster.deleted == ["conductor"]


def test_cancel_without_a_namespace_warns_of_remaining_jobs(
    cluster: FakeCluster,
    cancel: Callable[[], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The context's own would be another, and "nothing is there" not true.
    (tmp_path / "tuneyard" / "site.yaml").unlink()
    cluster.end("conductor", 1)
    assert cancel() == 0
    assert cluster.deleted == []
    assert "no site file names the namespace (--site FILE); Jobs may remain" in capsys.readouterr().err


def test_cancel_keeps_the_job_of_an_exited_conductor(
    attempt: Attempt, cluster: FakeCluster, cancel: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Job of a run that ended badly has failed too; its pods are what an operator looks at.
    attempt.put_conductor_heartbeat({}, left=True)
    monkeypatch.setattr(Attempt, "conductor_seen_recently", False)
    cluster.end("conductor", 1)
    assert cancel() == 0
    assert cluster.deleted == []


@pytest.mark.parametrize("leaves", [True, False])
def test_cancel_waits_for_a_live_conductor_and_checks_again(
    attempt: Attempt,
    cluster: FakeCluster,
    cancel: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    leaves: bool,
) -> None:
    attempt.put_conductor_heartbeat({})

    def wait(_attempt: Attempt) -> None:
        assert cluster.deleted == []
        cluster.end("conductor", 1)
        attempt.put_conductor_heartbeat({}, left=leaves)
        monkeypatch.setattr(Attempt, "conductor_seen_recently", False)

    monkeypatch.setattr("launcher.cli.cancel.wait_until_left", wait)
    assert cancel() == 0
    assert cluster.deleted == ([] if leaves else ["conductor"])


def test_cancel_keeps_a_conductor_that_is_restarting(cluster: FakeCluster, cancel: Callable[[], int]) -> None:
    assert cancel() == 0
    assert cluster.deleted == []
