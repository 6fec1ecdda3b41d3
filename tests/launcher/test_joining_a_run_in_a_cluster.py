"""Submitting a run that is under way joins it, or says whose conductor it ends."""

from __future__ import annotations

from typing import Any

import pytest
from fake_cluster import FakeCluster
from tiny import make_plan

from launcher.spec.site import Site
from launcher.store import DirectoryStore
from launcher.store.runs import Attempt
from launcher.targets.target import InCluster


@pytest.fixture
def attempt(store: DirectoryStore) -> Attempt:
    plan = make_plan()
    attempt = Attempt(store, plan.run_id, 1)
    attempt.record(plan, {"format": 1, "target": "cluster", "opened_at": 0.0})
    return attempt


def submit(attempt: Attempt, cluster: FakeCluster, **overlay: Any) -> list[str]:
    """What is said while the attempt is applied."""
    image = f"registry.example/image@sha256:{'0' * 64}"
    site = Site.model_validate(
        {
            "format": 1,
            "namespace": "team",
            "store": {"inside": "s3://runs/x"},
            "images": dict.fromkeys(("trainer", "worker", "conductor"), image),
        }
    )
    said: list[str] = []
    target = InCluster(site, overlay or None, None, said.append)
    target._cluster = cluster  # type: ignore[assignment]
    target.start(attempt)
    return said


def conductors(cluster: FakeCluster) -> list[str]:
    return list(cluster.things["Job"])


def test_the_same_run_is_joined_without_a_word(attempt: Attempt) -> None:
    cluster = FakeCluster()
    assert submit(attempt, cluster) == []
    assert submit(attempt, cluster) == []
    assert len(conductors(cluster)) == 1


def test_with_another_overlay_it_says_whose_stages_it_stops(attempt: Attempt) -> None:
    cluster = FakeCluster()
    submit(attempt, cluster)
    [first] = conductors(cluster)
    [said] = submit(attempt, cluster, spec={"priorityClassName": "batch"})
    assert said.startswith(
        f"warning: {first} conducts this run, applied with another site, placement or overlay"
    )


def test_another_attempt_follows_one_that_has_ended_without_a_word(attempt: Attempt) -> None:
    cluster = FakeCluster()
    submit(attempt, cluster)
    second = Attempt(attempt.store, attempt.run_id, 2)
    second.record(make_plan(), {"format": 1, "target": "cluster", "opened_at": 0.0})
    assert submit(second, cluster) == []
