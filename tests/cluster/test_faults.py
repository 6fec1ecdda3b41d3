"""Kill whatever can be killed, whenever: the run ends with the same results, and nothing finished is run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from launching import STAGES

from . import node
from .processes import wait_for
from .studies import SMOKE, ClusterUser, MakeUser

pytestmark = pytest.mark.cluster


def succeeds(user: ClusterUser, submitted: Any, expected: dict[str, Any]) -> None:
    """The run has the undisturbed digest, every stage was committed by one pod, nothing is left running."""
    verdict = user.verdict(submitted)
    assert verdict["results_digest"] == expected["results_digest"]
    succeeded = [
        pod["metadata"]["labels"]["tuneyard.dev/stage"]
        for pod in user.stage_pods()
        if pod["status"]["phase"] == "Succeeded"
    ]
    assert len(succeeded) == len(set(succeeded)), f"run twice: {sorted(succeeded)}"
    wait_for("no stage runs", lambda: not user.live_pods(), 60)


def terminate(user: ClusterUser, pod: str) -> None:
    user.space.api.delete(f"{user.space.path}/pods/{pod}")


def kill(user: ClusterUser, pod: str) -> None:
    wait_for(f"{pod} is killed", lambda: node.kill_all_containers(user.space.name, pod), 30)


@pytest.mark.usefixtures("own_node")
@pytest.mark.parametrize("how", [terminate, kill])
def test_a_pod_of_every_stage_is_killed_once(
    make_user: MakeUser,
    local_verdict: dict[str, Any],
    how: Callable[[ClusterUser, str], None],
) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "-o", "json")
    killed: set[str] = set()

    def all_killed() -> bool:
        for pod in user.stage_pods():
            labels = pod["metadata"]["labels"]
            stage = labels["tuneyard.dev/stage"]
            if (
                labels["tuneyard.dev/try"] == "1"
                and stage not in killed
                and pod["status"]["phase"] == "Running"
            ):
                killed.add(stage)
                how(user, pod["metadata"]["name"])
        return len(killed) == len(STAGES) or submitted.poll() is not None

    wait_for("a pod of every stage is killed", all_killed, 600)
    succeeds(user, submitted, local_verdict)
    assert killed == set(STAGES)
    assert {int(pod["metadata"]["labels"]["tuneyard.dev/try"]) for pod in user.stage_pods()} >= {2}


@pytest.mark.usefixtures("own_node")
def test_the_conductor_is_killed_and_the_api_server_restarted(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "-o", "json")
    user.running_pod("prepare")
    kill(user, user.conductor_pod())
    user.running_pod("train-lora-s1")
    terminate(user, user.conductor_pod())
    node.restart_apiserver()
    succeeds(user, submitted, local_verdict)
    assert len(user.pods("app.kubernetes.io/component=conductor")) >= 2
    # Its children went on without it.
    assert {pod["metadata"]["labels"]["tuneyard.dev/try"] for pod in user.stage_pods()} == {"1"}


@pytest.mark.usefixtures("own_node")
def test_the_store_is_away_for_half_a_minute(make_user: MakeUser, local_verdict: dict[str, Any]) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "-o", "json")
    user.running_pod("train-lora-s1")
    node.stop_s3()
    # The fault itself takes this long.
    time.sleep(30)
    node.start_s3()
    succeeds(user, submitted, local_verdict)


@pytest.mark.usefixtures("own_node")
def test_every_container_of_the_node_is_killed(make_user: MakeUser, local_verdict: dict[str, Any]) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "-o", "json")
    for stage in ("fetch-untuned", "predict-untuned", "score-lora-s1"):
        user.running_pod(stage)
        assert node.kill_all_containers(user.space.name) >= 1
    succeeds(user, submitted, local_verdict)
    user.delete_run()
