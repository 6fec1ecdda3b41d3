"""`launcher why` of a run whose conductor has no recent heartbeat: the API explains what the store cannot."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from launching import Launcher

from launcher.spec.placement import placed
from launcher.store import DirectoryStore
from launcher.store.records import Request
from launcher.store.runs import Attempt
from tests.cluster_client.api_server import ApiServer, Asked, Reply, listing
from tests.launcher.tiny import make_plan

CONDUCTOR = "tiny-12345"


@pytest.fixture
def run(launcher: Launcher, kubeconfig: Path) -> Attempt:  # noqa: ARG001
    """An open attempt in the cluster of `server` whose conductor has written no heartbeat."""
    plan = placed(make_plan(), ())
    attempt = Attempt(DirectoryStore(launcher.store), plan.run_id, 1)
    attempt.record(plan, Request(target="cluster", opened_at=time.time()))
    site = launcher.home / ".config" / "tuneyard" / "site.yaml"
    site.parent.mkdir(parents=True)
    site.write_text("namespace: team\n")
    return attempt


def holding(server: ApiServer, jobs: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
    def answer(asked: Asked) -> Reply:
        kind = asked.path.rpartition("/")[2]
        return listing("1", *{"jobs": jobs, "pods": pods}.get(kind, []))

    server.answer = answer


def job(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": CONDUCTOR, "creationTimestamp": "2026-11-27T04:00:00Z"}, "status": status}


def running_pod() -> dict[str, Any]:
    return {
        "metadata": {"name": f"{CONDUCTOR}-x", "uid": "u"},
        "spec": {"nodeName": "node-7"},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "conductor",
                    "ready": True,
                    "state": {"running": {"startedAt": "2026-11-27T04:00:05Z"}},
                }
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def why(launcher: Launcher, attempt: Attempt) -> str:
    done = launcher("why", attempt.run_id)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_why_names_a_lost_node_and_the_command(launcher: Launcher, run: Attempt, server: ApiServer) -> None:
    pod = running_pod()
    deleted_at = datetime.fromtimestamp(time.time() - 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pod["metadata"]["deletionTimestamp"] = deleted_at
    holding(server, [job()], [pod])
    sentence, step = why(launcher, run).splitlines()
    assert sentence.startswith("the conductor's pod makes no progress: node lost: node-7 does not answer")
    assert "kubectl delete node node-7" in step


def test_why_names_a_silent_node_before_its_pods_are_evicted(
    launcher: Launcher, run: Attempt, server: ApiServer
) -> None:
    pod = running_pod()
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    holding(server, [job()], [pod])
    output = why(launcher, run)
    assert "node node-7 has stopped responding" in output
    assert "next: kubectl describe node node-7" in output


def test_why_reports_a_deleted_or_failed_conductor_job(
    launcher: Launcher, run: Attempt, server: ApiServer
) -> None:
    holding(server, [], [])
    assert "the conductor's Job was deleted" in why(launcher, run)
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    holding(server, [job(conditions=[failed])], [])
    output = why(launcher, run)
    assert "the conductor's Job has failed" in output
    assert f"launcher retry {run.run_id}" in output


def test_why_reports_an_image_pull_error_before_the_first_heartbeat(
    launcher: Launcher, run: Attempt, server: ApiServer
) -> None:
    pod = running_pod()
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    holding(server, [job()], [pod])
    assert "the conductor's pod has not started: ErrImagePull: not found" in why(launcher, run)


def test_why_skips_the_cluster_after_a_recent_heartbeat(
    launcher: Launcher, run: Attempt, server: ApiServer
) -> None:
    run.put_conductor_heartbeat({})
    assert "is about to start its next stage" in why(launcher, run)
    assert server.asked == []


def test_why_falls_back_to_the_store_if_the_api_server_fails(
    launcher: Launcher, run: Attempt, server: ApiServer
) -> None:
    server.answer = lambda _: Reply(401, {})
    done = launcher("why", run.run_id)
    assert done.returncode == 0
    assert "is about to start its next stage" in done.stdout
    assert "warning: the cluster was not asked: " in done.stderr
