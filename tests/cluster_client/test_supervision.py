"""Supervision of the conductor's Job while a caller waits for the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from launcher.outcome import Failure
from launcher.store import DirectoryStore
from launcher.store.runs import Attempt
from launcher.targets.cluster import supervision
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.supervision import ConductorJobSupervision
from tests.cluster_client.api_server import ApiServer, Asked, Reply, listing, status


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def watcher(
    connect: Callable[..., Cluster], tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> ConductorJobSupervision:
    monkeypatch.setattr(supervision, "_POLL_INTERVAL_S", 0.0)
    attempt = Attempt(DirectoryStore(tmp_path / "store"), "sql-00000000", 1)
    attempt.put("request.json", {"format": 1, "target": "cluster", "opened_at": time.time()})
    return ConductorJobSupervision(
        attempt, connect(0.1), "sql-00000000-12345", messages.append, start_timeout_s=60
    )


def test_unreachable_api_server_is_reported_once_per_outage(
    watcher: ConductorJobSupervision, server: ApiServer, messages: list[str]
) -> None:
    away, there = Reply(503, {}), Reply(body={"metadata": {"name": "j", "resourceVersion": "1"}, "items": []})
    for answer in (away, away, there, away):
        server.answer = lambda _, answer=answer: answer
        watcher.look()
    assert len(messages) == 2
    assert all("progress is read from the store only" in text for text in messages)


def test_deleted_conductor_job_ends_the_wait(watcher: ConductorJobSupervision, server: ApiServer) -> None:
    server.answer = lambda asked: (
        status(404, "NotFound", "jobs not found") if asked.path.endswith("-12345") else listing("1")
    )
    with pytest.raises(Failure, match="the conductor's Job was deleted"):
        watcher.look()


def test_takeover_by_another_conductor_is_named(watcher: ConductorJobSupervision, server: ApiServer) -> None:
    server.answer = lambda asked: (
        status(404, "NotFound", "jobs not found")
        if asked.path.endswith("-12345")
        else listing("1", {"metadata": {"name": "sql-00000000-99999"}})
    )
    with pytest.raises(Failure, match="sql-00000000-99999 has taken over the run"):
        watcher.look()


@pytest.mark.parametrize("after_s", [5, 3600])
def test_conductor_job_without_a_pod_reports_why_and_times_out(
    watcher: ConductorJobSupervision, server: ApiServer, messages: list[str], after_s: int
) -> None:
    made = (datetime.now(UTC) - timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    job = {"metadata": {"name": "sql-00000000-12345", "creationTimestamp": made, "resourceVersion": "1"}}
    refused = {
        "metadata": {"name": "e"},
        "reason": "FailedCreate",
        "message": "admission webhook refuses: no owner label",
    }

    def answer(asked: Asked) -> Reply:
        if asked.path.endswith("-12345"):
            return Reply(body=job)
        return listing("1", refused) if "/events" in asked.path else listing("1")

    server.answer = answer
    if after_s < 60:
        watcher.look()
        watcher.look()
    else:
        with pytest.raises(Failure, match="did not start within 60 s: admission webhook refuses"):
            watcher.look()
    assert messages == ["the conductor's pod has not started: admission webhook refuses: no owner label"]
