"""Whole runs of the smoke profile as Jobs: output for the user, and the same results as on a laptop."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
import yaml

from launcher.store.runs import Attempt

from . import node
from .processes import wait_for
from .studies import RUN_LIMIT_S, SMOKE, ClusterUser, MakeUser

pytestmark = pytest.mark.cluster


def test_a_run_gives_what_the_same_plan_gives_on_a_laptop(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    # From two terminals at once: one run.
    first, second = (user.start(*SMOKE, "-o", "json") for _ in range(2))
    verdict = user.verdict(first)
    assert user.verdict(second)["results_digest"] == verdict["results_digest"]
    assert verdict["run_id"] == local_verdict["run_id"]
    assert verdict["results_digest"] == local_verdict["results_digest"]
    assert len(user.pods("app.kubernetes.io/component=conductor")) == 1
    # Every stage was one Job and one pod, and only the conductor had a token of the API.
    stages = user.pods("app.kubernetes.io/component=stage")
    names = [pod["metadata"]["labels"]["tuneyard.dev/stage"] for pod in stages]
    assert sorted(names) == sorted(line["stage"] for line in verdict["receipt"]["stages"])
    for pod in stages:
        assert pod["spec"]["automountServiceAccountToken"] is False
        mounted = [m["mountPath"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]]
        assert not [path for path in mounted if "kubernetes.io/serviceaccount" in path]
    # The receipt has the measured times of pods.
    assert sum(line["seconds_waiting"] for line in verdict["receipt"]["stages"]) > 0
    assert "row" in user("logs", verdict["run_id"], "--stage", "prepare").stdout
    # Submitted again: the verdict of before, and nothing new in the cluster.
    before = {job["metadata"]["uid"] for job in user.jobs()}
    again = user.verdict(user.start(*SMOKE, "-o", "json"))
    assert again["results_digest"] == verdict["results_digest"]
    assert {job["metadata"]["uid"] for job in user.jobs()} == before
    # Deleting the conductor's Job deletes all objects of the run.
    user.delete_run()


def test_a_cancelled_run_stops_its_pods_and_another_attempt_goes_on(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    submitted = user.start(*SMOKE)
    user.running_pod("train-lora-s1")
    following = user.start("logs", "sql", "--stage", "train-lora-s1", "-f")
    assert following.stdout is not None
    assert "training" in following.stdout.readline()
    assert user("cancel", "sql", timeout_s=RUN_LIMIT_S).returncode == 0
    code, _, err = user.finish(submitted)
    assert code == 25, err
    assert user.finish(following)[0] == 0
    wait_for("no stage runs", lambda: not user.live_pods(), 120)
    why = user("why", "sql")
    assert "was cancelled" in why.stdout
    retried = user("retry", "sql", "-o", "json", timeout_s=RUN_LIMIT_S)
    assert retried.returncode == 0, retried.stderr + user.describe()
    assert yaml.safe_load(retried.stdout)["results_digest"] == local_verdict["results_digest"]
    assert "prepare" not in {
        pod["metadata"]["labels"]["tuneyard.dev/stage"] for pod in user.stage_pods(attempt=2)
    }


def test_a_memory_kill_is_permanent_and_more_memory_is_another_attempt(
    make_user: MakeUser, local_verdict: dict[str, Any]
) -> None:
    user = make_user()
    limits = {"name": "stage", "resources": {"requests": {"memory": "150Mi"}, "limits": {"memory": "150Mi"}}}
    lean = user.overlay
    user.add_overlay({"names": {"train-lora-s1": {"spec": {"containers": [limits]}}}})
    code, _, err = user.finish(user.start(*SMOKE))
    user.overlay = lean
    assert code == 17, err + user.describe()
    assert "OOMKilled" in err
    advice = f"launcher retry {local_verdict['run_id']} --set contenders[lora].hardware.memory_gib=4"
    assert advice in err
    assert len(user.stage_pods("train-lora-s1")) == 1
    assert "report" in err[err.index("blocked by it") :]
    words = advice.split()[1:]
    retried = user(*words, "-o", "json", timeout_s=RUN_LIMIT_S)
    assert retried.returncode == 0, retried.stderr + user.describe()
    assert yaml.safe_load(retried.stdout)["results_digest"] == local_verdict["results_digest"]
    [trained] = user.stage_pods("train-lora-s1", attempt=2)
    assert trained["spec"]["containers"][0]["resources"]["limits"]["memory"] == "4Gi"


def test_a_run_that_costs_more_than_its_cap_is_stopped_and_its_receipt_says_what_it_took(
    make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten cents a second of any stage's pod; the training would take an hour.
    price = {"device": "cpu", "usd": 360.0, "source": "a price for this test", "date": date(2026, 11, 27)}
    user = make_user(gpu_hour_usd=[price])
    submitted = user.start(*SMOKE, "--set", "contenders[lora].training.steps=20000")
    user.running_pod("train-lora-s1")
    # Only training is left to be stopped: a stopped pod is deleted, and the API says nothing of it any more.
    user.await_output("the other stages have finished", r"score-untuned +finished", "status", "sql")
    assert user("cancel", "sql", timeout_s=RUN_LIMIT_S).returncode == 0
    assert user.finish(submitted)[0] == 25
    [run] = user.json("list", "-o", "json")
    store = user.open_store(monkeypatch)
    before = Attempt(store, run["run"], 1).get("receipt.json")
    # Half a minute more than what the first attempt took, which counts.
    cap_usd = before["usd"] + 3
    stopped = user("retry", "sql", "--budget-usd", str(cap_usd), timeout_s=RUN_LIMIT_S)
    assert stopped.returncode == 20, stopped.stderr + user.describe()
    assert f"are spent, budget_usd is ${cap_usd:.2f}" in stopped.stderr
    assert f"launcher retry {run['run']} --budget-usd N" in stopped.stderr
    wait_for("no stage runs", lambda: not user.live_pods(), 120)
    receipt = Attempt(store, run["run"], 2).get("receipt.json")
    assert [price["source"] for price in receipt["prices"]] == ["a price for this test"]
    assert receipt["seconds_lost"] > 0
    assert receipt["seconds_failed"] == 0
    paid_s = sum(receipt[f"seconds{kind}"] for kind in ("", "_overhead", "_lost"))
    assert receipt["usd"] == pytest.approx(paid_s / 10, abs=0.01)
    wasted_before_s = before["seconds_overhead"] + before["seconds_lost"]
    # The API has whole seconds of a pod's start and end, ten cents each: three may be missing.
    assert receipt["usd"] + wasted_before_s / 10 > cap_usd - 0.3
    # The pods of the stopped training are being deleted; of the others the API says the same as the receipts.
    finished = [
        pod for pod in user.stage_pods() if pod["metadata"]["labels"]["tuneyard.dev/stage"] != "train-lora-s1"
    ]
    finished_s = sum(pod_seconds(pod) for pod in finished)
    measured_s = receipt["seconds"] + receipt["seconds_overhead"] + before["seconds_overhead"]
    assert measured_s == pytest.approx(finished_s, abs=2 * len(receipt["stages"]))


def pod_seconds(pod: dict[str, Any]) -> float:
    """Run time of an ended pod; the API reports whole seconds."""
    [status] = pod["status"]["containerStatuses"]
    ended = status["state"]["terminated"]
    begun, finished = (datetime.fromisoformat(ended[name]) for name in ("startedAt", "finishedAt"))
    return (finished - begun).total_seconds()


def test_doctor_finds_the_namespace_whole_or_names_the_missing_key(make_user: MakeUser) -> None:
    user = make_user()
    whole = user("doctor", "--target", "cluster")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    user.site.write_text(user.site.read_text().replace("key: secret_key", "key: other"))
    lacking = user("doctor", "--target", "cluster")
    assert lacking.returncode == 21
    assert "key other of Secret store does not exist" in lacking.stdout
    assert "has no key other" in lacking.stdout  # what submit would say
    assert user.jobs() == []


def test_an_image_that_is_not_there_ends_the_run_and_says_so(
    make_user: MakeUser, project_images: dict[str, str]
) -> None:
    missing = project_images["worker"].partition("@")[0] + "@sha256:" + "0" * 64
    user = make_user(images={"worker": missing}, start_timeout_s=30)
    code, _, err = user.finish(user.start(*SMOKE))
    assert code == 27, err + user.describe()
    assert "ErrImagePull" in err or "ImagePullBackOff" in err


@pytest.mark.xdist_group("gpus")
@pytest.mark.usefixtures("own_node")
def test_pods_that_fit_no_node_are_refused_before_anything_is_applied(make_user: MakeUser) -> None:
    user = make_user()
    node.set_gpus(4)
    eight = user("submit", "sql", "--profile", "smoke", *on_gpus(8))
    assert eight.returncode != 0
    assert "nvidia.com/gpu" in eight.stderr
    assert user.jobs() == []


@pytest.mark.xdist_group("gpus")
@pytest.mark.usefixtures("own_node")
def test_a_training_pod_lands_on_a_node_with_the_gpu_it_asks_for(make_user: MakeUser) -> None:
    user = make_user()
    node.set_gpus(4)
    started = user.start("submit", "sql", "--profile", "smoke", *on_gpus(2))
    wait_for("a training pod", lambda: user.stage_pods("train-lora-s1"), 300)
    [pod] = user.stage_pods("train-lora-s1")
    assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A40"}
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "2"
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    [shared] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "dshm"]
    assert shared["emptyDir"]["medium"] == "Memory"
    # The node only reports GPUs: the stage finds none, fails and is not retried.
    code, _, err = user.finish(started)
    assert code == 21, err + user.describe()
    assert len(user.stage_pods("train-lora-s1")) == 1


def on_gpus(count: int) -> tuple[str, ...]:
    hardware = "contenders[lora].hardware"
    return (
        *("--set", f"{hardware}.device=NVIDIA-A40"),
        *("--set", f"{hardware}.count={count}"),
    )


def test_two_nodes_train_the_adapter_that_one_pod_with_two_processes_trains(make_user: MakeUser) -> None:
    user = make_user()
    adapters = {name: train(user, name) for name in ("nodes", "count")}
    assert adapters["nodes"] == adapters["count"]


def train(user: ClusterUser, what: str) -> str:
    """The digest of the adapter of a run with two `nodes`, or two processes (`count`) on one; then it is forgotten."""
    hardware = f"contenders[lora].hardware.{what}=2"
    verdict = user.verdict(user.start(*SMOKE, "--set", hardware, "-o", "json"))
    pods = user.stage_pods("train-lora-s1")
    assert len(pods) == (2 if what == "nodes" else 1), user.describe()
    listed = user.json("artifacts", verdict["run_id"], "-o", "json")
    digests = [
        entry["sha256"]
        for entry in listed
        if entry["stage"] == "train-lora-s1" and entry["file"] == "adapter_model.safetensors"
    ]
    assert len(digests) == 1
    user.forget(verdict["run_id"])
    return str(digests[0])
