"""Stage pods that do not start or are on silent nodes: notes, timeouts, and waits without a limit."""

from __future__ import annotations

import pytest
from job_scene import START_TIMEOUT_S, Scene

from launcher.outcome import Reason
from launcher.targets.cluster.api_errors import api_error


def test_image_pull_error_fails_after_the_start_timeout(scene: Scene) -> None:
    scene.on_tick = lambda s: (
        [s.cluster.wait_for(job, "ImagePullBackOff", "Back-off pulling image") for job in s.live()] and None
    )
    failure = scene.failure(scene.conduct(), "prepare")
    assert failure.reason is Reason.CANNOT_START
    assert "ImagePullBackOff: Back-off pulling image" in failure.what
    assert START_TIMEOUT_S <= scene.tick < START_TIMEOUT_S + 30
    assert "prepare-aaaaa-t1" in scene.cluster.deleted


def test_missing_secret_fails_soon(scene: Scene) -> None:
    scene.on_tick = lambda s: (
        [
            s.cluster.wait_for(job, "CreateContainerConfigError", 'secret "store" not found')
            for job in s.live()
        ]
        and None
    )
    failure = scene.failure(scene.conduct(), "prepare")
    assert 'secret "store" not found' in failure.what
    assert scene.tick < 60


def test_pending_reason_is_noted_while_the_pod_waits(scene: Scene) -> None:
    seen: list[str] = []

    def act(scene: Scene) -> None:
        if scene.tick < 5:
            for job in scene.live():
                for pod in scene.cluster.pods_of(job):
                    pod["status"]["conditions"] = [
                        {
                            "type": "PodScheduled",
                            "status": "False",
                            "reason": "Unschedulable",
                            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
                        }
                    ]
            seen.extend(map(str, scene.backend.notes.values()))
        else:
            scene.finish_all()

    scene.on_tick = act
    scene.conduct()
    assert "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu." in seen
    assert scene.backend.notes == {}


def test_waiting_for_room_used_by_the_run_never_times_out(scene: Scene) -> None:
    full = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "Insufficient cpu",
    }

    def act(scene: Scene) -> None:
        for job in scene.live():
            if scene.stage_of(job) == "train-lora-s1" and scene.tick < 3 * START_TIMEOUT_S:
                scene.cluster.run(job)
            elif scene.stage_of(job) == "score-untuned" and scene.tick < 3 * START_TIMEOUT_S:
                for pod in scene.cluster.pods_of(job):
                    pod["status"]["conditions"] = [full]
            else:
                scene.finish(job)

    scene.on_tick = act
    scene.succeeds()


def test_queued_job_never_times_out(scene: Scene) -> None:
    seen: set[str] = set()

    def act(scene: Scene) -> None:
        for job in scene.live():
            made = scene.cluster.things["Job"][job]
            if scene.stage_of(job) != "train-lora-s1":
                scene.finish(job)
            elif scene.tick < 3 * START_TIMEOUT_S:
                # As Kueue leaves it before it admits the Job, and after it preempted it.
                made["spec"]["suspend"] = True
                made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
                for pod in scene.cluster.pods_of(job):
                    del scene.cluster.things["Pod"][pod["metadata"]["name"]]
                seen.update(map(str, scene.backend.notes.values()))
            elif made["spec"].pop("suspend", None):
                scene.cluster.add_pod(made)
            else:
                scene.finish(job)

    scene.on_tick = act
    scene.succeeds()
    assert any(note.startswith("its Job waits for queue gpus") for note in seen)


@pytest.mark.parametrize("at_create", [True, False])
def test_quota_used_by_the_run_never_times_out(scene: Scene, at_create: bool) -> None:
    text = 'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 1, limited: 1'
    refused = api_error(403, {"message": text}, doing="create Job x", where="here")
    patient_until = 3 * START_TIMEOUT_S
    noted: set[str] = set()

    def act(scene: Scene) -> None:
        noted.update(map(str, scene.backend.notes.values()))
        full = scene.tick < patient_until
        trains = any(scene.stage_of(job) == "train-lora-s1" for job in scene.live())
        if at_create:
            scene.cluster.rejection = refused if full and trains else None
        for job in scene.live():
            stage = scene.stage_of(job)
            if stage == "train-lora-s1" and full:
                scene.cluster.run(job)
            elif stage == "score-untuned" and full and not at_create:
                for pod in scene.cluster.pods_of(job):
                    del scene.cluster.things["Pod"][pod["metadata"]["name"]]
                scene.cluster.things["Event"] = {
                    name: {
                        "metadata": {"name": name},
                        "involvedObject": {"name": job},
                        "lastTimestamp": scene.cluster.stamp(after_s),
                        "reason": reason,
                        "message": message,
                    }
                    # As the API lists them: not by time.
                    for name, after_s, reason, message in (
                        ("b", 0.0, "FailedCreate", text),
                        ("c", -60.0, "SuccessfulCreate", "Created pod"),
                    )
                }
            elif not scene.cluster.pods_of(job):
                scene.cluster.add_pod(scene.cluster.things["Job"][job])
            else:
                scene.finish(job)

    scene.on_tick = act
    scene.succeeds()
    assert any("exceeded quota: gpus" in note for note in noted), noted


def test_deleted_job_on_a_lost_node_notes_the_next_step(scene: Scene) -> None:
    seen: set[str] = set()

    def act(scene: Scene) -> None:
        if scene.tick == 1:
            scene.cluster.run("prepare-aaaaa-t1")
            scene.cluster.lingering = True
            scene.cluster.delete("Job", "prepare-aaaaa-t1")
            for pod in scene.cluster.pods_of("prepare-aaaaa-t1"):
                pod["metadata"]["deletionTimestamp"] = scene.cluster.stamp()
        if scene.tick < 100:
            seen.update(map(str, scene.backend.notes.values()))
            return
        for pod in scene.cluster.pods_of("prepare-aaaaa-t1"):
            del scene.cluster.things["Pod"][pod["metadata"]["name"]]
        scene.finish_all()

    scene.on_tick = act
    scene.succeeds()
    assert any(note.startswith("node lost: node-1") and "kubectl delete node" in note for note in seen), seen


def test_pod_on_a_silent_then_lost_node_is_not_replaced(scene: Scene) -> None:
    seen: list[str] = []

    def act(scene: Scene) -> None:
        for job in scene.live():
            if scene.stage_of(job) != "prepare":
                scene.finish(job)
            elif scene.tick < 3 * START_TIMEOUT_S:
                scene.cluster.run(job)
                for pod in scene.cluster.pods_of(job):
                    # The node's last status, and the node controller's mark of a silent node.
                    pod["status"]["containerStatuses"][0]["ready"] = True
                    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
                    if scene.tick > 2 * START_TIMEOUT_S:
                        pod["metadata"].setdefault("deletionTimestamp", scene.cluster.stamp())
                seen.extend(map(str, scene.backend.notes.values()))
            else:
                scene.finish(job)

    scene.on_tick = act
    scene.succeeds()
    assert scene.cluster.created.count("prepare-aaaaa-t1") == 1
    assert "prepare-aaaaa-t2" not in scene.cluster.created
    # One of the two is noted all the time, also during eviction.
    assert {note.partition(":")[0] for note in seen} == {"node node-1 has stopped responding", "node lost"}
    assert len(seen) > 2 * START_TIMEOUT_S
    assert seen[0].startswith("node node-1 has stopped responding")
    assert seen[-1].startswith("node lost: node-1")
    assert "out-of-service" in seen[-1]
    assert scene.backend.notes == {}
