"""Kill whatever can be killed, whenever: the run ends with the same results, and nothing finished is run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import STAGES

from . import node
from .faults import evict, kill, succeeds, terminate
from .processes import wait_for
from .studies import RUN_LIMIT_S, SMOKE, ClusterUser, MakeUser

pytestmark = pytest.mark.cluster


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

    wait_for("a pod of every stage is killed", all_killed, RUN_LIMIT_S / 3)
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


def test_an_evicted_pod_is_replaced_and_what_it_took_is_lost_not_failed(
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
    # By its own Job: to the conductor this was one try. An evicted pod is gone from the API.
    [replaced] = user.stage_pods("train-lora-s1")
    assert replaced["metadata"]["name"] != evicted
    assert replaced["metadata"]["labels"]["tuneyard.dev/try"] == "1"
    [followed] = user.pods("app.kubernetes.io/component=conductor")
    assert followed["metadata"]["name"] != conductor


@pytest.mark.usefixtures("own_node")
def test_a_lost_node_is_told_and_nothing_is_started_in_its_place_until_it_is_back(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    submitted = user.start(*SMOKE, "--overlay", str(soon_taken_away(user)), "-o", "json")
    stage = "train-lora-s1"
    pod, conductor = user.running_pod(stage), user.conductor_pod()

    with node.lost() as stop:
        stop(user.space.name, pod)
        user.await_said("the node is missed", f"node {node.NODE} is not heard of", "why", "sql")
        # `why` names the first of the stages that run, whichever those are just then; `status` has all.
        said = user.await_said("the node is lost", r"\A\S+ is stuck: node lost: ", "why", "sql")
        assert f"kubectl delete node {node.NODE}" in said
        user.await_said("the stage's node is lost", rf"^{stage} .*node lost: ", "status", "sql")
        assert [one["metadata"]["name"] for one in user.stage_pods(stage)] == [pod]
        # The conductor was on that node too.
        stop(user.space.name, conductor)
        lost = "the conductor's pod does not get on: node lost: "
        said = user.await_said("the conductor is missed", lost, "why", "sql")
        assert f"kubectl delete node {node.NODE}" in said
        assert user.live_conductors() == [conductor]
        assert [one["metadata"]["name"] for one in user.stage_pods(stage)] == [pod]
    verdict = succeeds(user, submitted, local_verdict)
    assert verdict["receipt"]["seconds_lost"] > 0
    assert verdict["receipt"]["seconds_failed"] == 0


def soon_taken_away(user: ClusterUser) -> Path:
    """An overlay: pods are taken from a silent node after seconds instead of five minutes, with little grace.

    Not at once: that the node is missed is said in between, a beat of the conductor later, and has to be seen.
    """
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    soon = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 45} for key in keys
    ]
    path = user.home / "soon.yaml"
    path.write_text(yaml.safe_dump({"spec": {"tolerations": soon, "terminationGracePeriodSeconds": 5}}))
    return path
