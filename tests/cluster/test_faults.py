"""Runs survive killed pods, conductors, servers and nodes: same results, and no finished stage runs again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from launching import STAGES

from . import node
from .faults import evict, kill, succeeds, terminate
from .processes import wait_for
from .studies import RUN_LIMIT_S, SMOKE, ClusterUser, MakeUser

pytestmark = pytest.mark.cluster

#: Pods are taken from a silent node after seconds instead of five minutes, with a short grace period. Not at once:
#: the silence is reported before that, one heartbeat of the conductor later.
_AFTER_45_S = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 45}
SOON_TAKEN_AWAY = {
    "spec": {
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", **_AFTER_45_S},
            {"key": "node.kubernetes.io/unreachable", **_AFTER_45_S},
        ],
        "terminationGracePeriodSeconds": 5,
    }
}


@pytest.mark.usefixtures("own_node")
@pytest.mark.parametrize("how", [kill, pytest.param(terminate, marks=pytest.mark.chaos)])
def test_a_run_survives_a_killed_pod_of_every_stage(
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

    wait_for("a pod of every stage is killed", all_killed, RUN_LIMIT_S / 3)
    succeeds(user, submitted, local_verdict)
    assert killed == set(STAGES)
    assert {int(pod["metadata"]["labels"]["tuneyard.dev/try"]) for pod in user.stage_pods()} >= {2}


@pytest.mark.alone
@pytest.mark.usefixtures("own_node")
def test_a_run_survives_a_killed_conductor_and_a_restart_of_the_api_server(
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
    # Its children continued without it.
    assert {pod["metadata"]["labels"]["tuneyard.dev/try"] for pod in user.stage_pods()} == {"1"}


@pytest.mark.alone
@pytest.mark.usefixtures("own_node")
def test_a_run_survives_half_a_minute_without_its_store(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "-o", "json")
    user.running_pod("train-lora-s1")
    node.stop_s3()
    # The fault itself takes this long.
    time.sleep(30)
    node.start_s3()
    succeeds(user, submitted, local_verdict)


@pytest.mark.chaos
@pytest.mark.usefixtures("own_node")
def test_a_run_survives_all_its_containers_killed_at_once(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "-o", "json")
    for stage in ("fetch-untuned", "predict-untuned", "score-lora-s1"):
        user.running_pod(stage)
        assert node.kill_all_containers(user.space.name) >= 1
    succeeds(user, submitted, local_verdict)
    user.delete_run()


def test_an_evicted_pod_is_replaced_and_its_seconds_count_as_lost_not_failed(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "-o", "json")
    evicted = user.running_pod("train-lora-s1")
    wait_for("it has trained for some time", lambda: user.has_run(evicted, 2), 60)
    conductor = user.conductor_pod()
    evict(user, evicted)
    evict(user, conductor)
    verdict = succeeds(user, submitted, local_verdict)
    training = {line["stage"]: line for line in verdict["receipt"]["stages"]}["train-lora-s1"]
    assert training["seconds_lost"] > 0
    assert verdict["receipt"]["seconds_failed"] == 0
    # Its own Job replaced it: one try for the conductor. An evicted pod is gone from the API.
    [replaced] = user.stage_pods("train-lora-s1")
    assert replaced["metadata"]["name"] != evicted
    assert replaced["metadata"]["labels"]["tuneyard.dev/try"] == "1"
    [followed] = user.pods("app.kubernetes.io/component=conductor")
    assert followed["metadata"]["name"] != conductor


@pytest.mark.alone
@pytest.mark.usefixtures("own_node")
def test_a_lost_node_is_reported_and_its_stage_not_started_elsewhere(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    user.add_overlay(SOON_TAKEN_AWAY)
    submitted = user.start(*SMOKE, "-o", "json")
    stage = "train-lora-s1"
    pod, conductor = user.running_pod(stage), user.conductor_pod()

    with node.lost() as stop:
        stop(user.space.name, pod)
        user.await_output("the node is missed", f"node {node.NODE} has stopped responding", "why", "sql")
        # `why` names the first of the running stages; `status` has all.
        said = user.await_output("the node is lost", r"\A\S+ is stuck: node lost: ", "why", "sql")
        assert f"kubectl delete node {node.NODE}" in said
        user.await_output("the stage's node is lost", rf"^{stage} .*node lost: ", "status", "sql")
        assert [one["metadata"]["name"] for one in user.stage_pods(stage)] == [pod]
        # The conductor was on that node too.
        stop(user.space.name, conductor)
        lost = "the conductor's pod makes no progress: node lost: "
        said = user.await_output("the conductor is missed", lost, "why", "sql")
        assert f"kubectl delete node {node.NODE}" in said
        assert user.live_conductors() == [conductor]
        assert [one["metadata"]["name"] for one in user.stage_pods(stage)] == [pod]
    verdict = succeeds(user, submitted, local_verdict)
    assert verdict["receipt"]["seconds_lost"] > 0
    assert verdict["receipt"]["seconds_failed"] == 0


@pytest.mark.usefixtures("own_node")
def test_a_frozen_stage_is_ended_and_tried_again(make_user: MakeUser) -> None:
    user = make_user()
    limit = {"name": "TUNEYARD_HEARTBEAT_LIMIT_S", "value": "20"}
    user.add_overlay({"conductor": {"spec": {"containers": [{"name": "conductor", "env": [limit]}]}}})
    user.add_overlay({"stages": {"spec": {"terminationGracePeriodSeconds": 5}}})
    steps = "contenders[lora].training.steps=2000"
    user.start(*SMOKE, "--set", steps, "-o", "json")
    pod = user.running_pod("train-lora-s1")
    wait_for("the training makes progress", lambda: "eta=" in user.space.log(pod), 120)
    assert node.freeze(user.space.name, pod)

    def next_try() -> bool:
        return {
            one["metadata"]["labels"]["tuneyard.dev/try"] for one in user.stage_pods("train-lora-s1")
        } == {"2"}

    wait_for("another try runs in place of the frozen pod", next_try, 120)
    assert pod not in user.live_pods()
