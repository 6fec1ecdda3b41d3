"""Whoever waits for a run looks at its conductor's Job, and does not lose heart with the API server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cluster import supervision
from launcher.cluster.client import Cluster
from launcher.cluster.supervision import Supervision
from launcher.outcome import Failure
from launcher.runs import Attempt
from launcher.store import DirectoryStore
from tests.cluster_client.api_server import ApiServer, Reply, status


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def watcher(
    connect: Callable[..., Cluster], tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> Supervision:
    monkeypatch.setattr(supervision, "_LOOK_INTERVAL_S", 0.0)
    attempt = Attempt(DirectoryStore(tmp_path / "store"), "sql-00000000", 1)
    attempt.put("request.json", {"format": 1, "target": "cluster", "opened_at": time.time()})
    return Supervision(attempt, connect(0.1), "sql-00000000-12345", said.append, start_timeout_s=60)


def test_an_api_server_that_is_away_is_said_once_each_time_and_waited_for(
    watcher: Supervision, server: ApiServer, said: list[str]
) -> None:
    away, there = Reply(503, {}), Reply(body={"metadata": {"name": "j", "resourceVersion": "1"}, "items": []})
    for answer in (away, away, there, away):
        server.answer = lambda _, answer=answer: answer
        watcher.look()
    assert len(said) == 2
    assert all("the run is looked for in the store alone" in text for text in said)


def test_a_job_that_was_deleted_ends_the_wait(watcher: Supervision, server: ApiServer) -> None:
    server.answer = lambda _: status(404, "NotFound", "jobs not found")
    with pytest.raises(Failure, match="the conductor's Job was deleted"):
        watcher.look()
