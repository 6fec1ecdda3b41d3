"""Stage pods that fail: the reason, and whether another try follows."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from job_scene import Scene

from launcher.outcome import Failure, Reason


def test_memory_kill_is_permanent_and_names_the_flag(scene: Scene) -> None:
    scene.failing("train-lora-s1", lambda job: scene.cluster.end(job, 137, reason="OOMKilled"))
    outcome = scene.conduct()
    failure = scene.failure(outcome, "train-lora-s1")
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert "limit is 8Gi" in failure.what
    assert (
        failure.next_step
        == f"launcher retry {scene.plan.run_id} --set contenders[lora].hardware.memory_gib=16"
    )
    assert outcome is not None
    assert outcome.stages["report"].to_json() == {"state": "blocked", "blocked_by": "train-lora-s1"}


@pytest.mark.parametrize("code", [137, 143])
def test_killed_or_terminated_pod_is_retried(scene: Scene, code: int) -> None:
    scene.failing("predict-untuned", lambda job: scene.cluster.end(job, code), times=3)
    scene.succeeds()
    assert [n for n in scene.cluster.created if n.startswith("predict-untuned")] == [
        f"predict-untuned-aaaaa-t{number}" for number in (1, 2, 3, 4)
    ]
    assert ("predict-untuned", 1) in scene.kept_logs


def test_termination_message_overrides_the_exit_code(scene: Scene) -> None:
    cause = Failure(Reason.BAD_DATA, "row 7 has no answer", where="prepare")
    scene.failing("prepare", lambda job: scene.cluster.end(job, 11, message=cause.termination_message()))
    failure = scene.failure(scene.conduct(), "prepare")
    assert (failure.reason, failure.what) == (Reason.BAD_DATA, "row 7 has no answer")


def test_deleted_job_is_retried(scene: Scene) -> None:
    scene.failing("prepare", lambda job: scene.cluster.delete("Job", job) and None)
    scene.succeeds()
    assert "prepare-aaaaa-t2" in scene.cluster.created


def test_pod_without_an_exit_code_is_retried(scene: Scene) -> None:
    def vanish(job: str) -> None:
        scene.cluster.end(job, 1)
        for pod in scene.cluster.pods_of(job):
            del scene.cluster.things["Pod"][pod["metadata"]["name"]]

    scene.failing("prepare", vanish)
    scene.succeeds()


_GONE = Failure(Reason.KILLED, "node 1 is gone").termination_message()


@pytest.mark.parametrize(
    ("peer_code", "peer_message", "peer_ended_s"),
    [
        pytest.param(137, _GONE, 7.0, id="its peer says so"),
        pytest.param(143, "", 7.0, id="its peer was deleted by the Job"),
        pytest.param(137, _GONE, 3.0, id="its peer's clock is behind"),
    ],
)
def test_first_failed_node_gives_the_reason(
    scene: Scene, peer_code: int, peer_message: str, peer_ended_s: float
) -> None:
    def fail(job: str) -> None:
        [first] = scene.cluster.pods_of(job)
        second = scene.cluster.add_pod(scene.cluster.things["Job"][job])
        scene.cluster.end(job, 137)
        for pod, index, code, reason, message, after_s in (
            (first, "1", 137, "OOMKilled", "", 5.0),
            (second, "0", peer_code, "Error", peer_message, peer_ended_s),
        ):
            pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = index
            [status] = pod["status"]["containerStatuses"]
            status["state"]["terminated"] |= {
                "exitCode": code,
                "reason": reason,
                "message": message,
                "finishedAt": scene.cluster.stamp(after_s),
            }

    scene.failing("train-lora-s1", fail)
    failure = scene.failure(scene.conduct(), "train-lora-s1")
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert "memory_gib=16" in failure.next_step
    assert scene.cluster.created.count("train-lora-s1-aaaaa-t1") == 1
    assert "train-lora-s1-aaaaa-t2" not in scene.cluster.created


def test_pod_rejected_by_its_node_is_retried_with_growing_pauses(scene: Scene) -> None:
    made_at: list[int] = []

    def act(scene: Scene) -> None:
        for job in scene.live():
            if scene.stage_of(job) != "prepare" or scene.tick > 60:
                scene.finish(job)
                continue
            made_at.append(scene.tick)
            scene.cluster.end(job, 1)
            for pod in scene.cluster.pods_of(job):
                pod["status"] = {
                    "phase": "Failed",
                    "reason": "UnexpectedAdmissionError",
                    "message": "Allocate failed: no healthy devices present",
                }

    scene.on_tick = act
    scene.succeeds()
    ends = [one.end for one in scene.attempt.tries() if one.stage == "prepare"]
    assert ends[0].failure.what == (
        "its node did not run it: UnexpectedAdmissionError: Allocate failed: no healthy devices present"
    )
    pauses = [later - sooner for sooner, later in pairwise(made_at)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 10


def test_sidecar_containers_do_not_decide_the_failure(scene: Scene) -> None:
    cause = Failure(Reason.BAD_DATA, "row 7 has no answer", where="prepare")

    def fail(job: str) -> None:
        scene.cluster.end(job, 11, message=cause.termination_message())
        for pod in scene.cluster.pods_of(job):
            beside = {"name": "logs", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
            pod["status"]["containerStatuses"].insert(0, beside)

    scene.failing("prepare", fail)
    failure = scene.failure(scene.conduct(), "prepare")
    assert (failure.reason, failure.what) == (Reason.BAD_DATA, "row 7 has no answer")


def test_failed_init_container_is_named_with_its_log(scene: Scene) -> None:
    def fail(job: str) -> None:
        scene.cluster.end(job, 1)
        for pod in scene.cluster.pods_of(job):
            pod["status"] = {
                "phase": "Failed",
                "initContainerStatuses": [{"name": "warm", "state": {"terminated": {"exitCode": 3}}}],
                "containerStatuses": [{"name": "stage", "state": {"waiting": {"reason": "PodInitializing"}}}],
            }

    scene.failing("prepare", fail, times=2)
    failure = scene.failure(scene.conduct(), "prepare")
    assert failure.what == "the init container warm ended with exit code 3"
    assert re.fullmatch(r"read its log: kubectl logs prepare-aaaaa-t2-\d+ -c warm", failure.next_step)


def test_rejected_job_fails_its_stage(scene: Scene) -> None:
    scene.cluster.rejection = Failure(Reason.UNSUPPORTED, "exceeded quota: pods=10")
    failure = scene.failure(scene.conduct(), "prepare")
    assert failure.what == "exceeded quota: pods=10"


def test_pod_over_its_disk_limit_fails_permanently(scene: Scene) -> None:
    why = 'Usage of EmptyDir volume "scratch" exceeds the limit "2Gi". '

    def evict(job: str) -> None:
        scene.cluster.end(job, 137)
        for pod in scene.cluster.pods_of(job):
            pod["status"] |= {"reason": "Evicted", "message": why}

    scene.failing("prepare", evict)
    failure = scene.failure(scene.conduct(), "prepare")
    assert (failure.reason, failure.what) == (Reason.DISK_FULL, why.strip())
    assert "--overlay" in failure.next_step
    assert "prepare-aaaaa-t2" not in scene.cluster.created
