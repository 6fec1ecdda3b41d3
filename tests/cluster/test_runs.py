"""Whole runs of the smoke profile as Jobs: what a user sees, and the same results as on a laptop."""

from __future__ import annotations

from typing import Any

import pytest
from launching import Launcher

from .studies import MakeUser

SMOKE = ("submit", "sql", "--profile", "smoke")

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="session")
def local_verdict(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the same plan gives on this machine."""
    verdict: dict[str, Any] = Launcher(tmp_path_factory.mktemp("local")).json(
        *SMOKE, "--target", "local", "-o", "json"
    )
    return verdict


def test_a_run_gives_what_the_same_plan_gives_on_a_laptop(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    verdict = user.verdict(user.start(*SMOKE, "-o", "json"))
    assert verdict["run_id"] == local_verdict["run_id"]
    assert verdict["results_digest"] == local_verdict["results_digest"]
    # Every stage was one Job and one pod, and nobody but the conductor could speak to the API.
    stages = user.pods("app.kubernetes.io/component=stage")
    names = [pod["metadata"]["labels"]["tuneyard.dev/stage"] for pod in stages]
    assert sorted(names) == sorted(line["stage"] for line in verdict["receipt"]["stages"])
    for pod in stages:
        assert pod["spec"]["automountServiceAccountToken"] is False
        mounted = [m["mountPath"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]]
        assert not [path for path in mounted if "kubernetes.io/serviceaccount" in path]
    # The receipt speaks of measured pods.
    assert all(line["seconds_waiting"] > 0 for line in verdict["receipt"]["stages"])
    # Submitted again: the verdict of before, and nothing new in the cluster.
    before = {job["metadata"]["uid"] for job in user.jobs()}
    again = user.verdict(user.start(*SMOKE, "-o", "json"))
    assert again["results_digest"] == verdict["results_digest"]
    assert {job["metadata"]["uid"] for job in user.jobs()} == before
