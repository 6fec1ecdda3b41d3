"""Faults in a run's pods, and the checks that follow them."""

from __future__ import annotations

from typing import Any

from . import node
from .processes import wait_for
from .studies import ClusterUser


def succeeds(user: ClusterUser, submitted: Any, expected: dict[str, Any]) -> dict[str, Any]:
    """Check that the run ends with the expected digest, one committed pod per stage and none running."""
    verdict = user.verdict(submitted)
    assert verdict["results_digest"] == expected["results_digest"]
    succeeded = [
        pod["metadata"]["labels"]["tuneyard.dev/stage"]
        for pod in user.stage_pods()
        if pod["status"]["phase"] == "Succeeded"
    ]
    assert len(succeeded) == len(set(succeeded)), f"run twice: {sorted(succeeded)}"
    wait_for("no stage runs", lambda: not user.live_pods(), 60)
    return verdict


def terminate(user: ClusterUser, pod: str) -> None:
    user.space.api.delete(f"{user.space.path}/pods/{pod}")


def evict(user: ClusterUser, pod: str) -> None:
    """Evict a pod through the API, as `kubectl drain` does."""
    user.space.api.create(
        f"{user.space.path}/pods/{pod}/eviction",
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": user.space.name},
        },
    )


def kill(user: ClusterUser, pod: str) -> None:
    wait_for(f"{pod} is killed", lambda: node.kill_all_containers(user.space.name, pod), 30)
