"""The conductor with Jobs as its backend, on a cluster in memory: whatever a pod does, the run knows what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster
from tiny import make_plan

from launcher import closing
from launcher.cluster.backend import ClusterBackend
from launcher.cluster.conduct import take_over
from launcher.cluster.refusals import refusal
from launcher.conductor import Conductor
from launcher.outcome import Failure, Reason
from launcher.runs import Attempt
from launcher.store import DirectoryStore

START_TIMEOUT_S = 300.0
Act = Callable[["Scene"], None]


class Scene:
    """One run on one store and one cluster; `acts` happen at ticks of a second each."""

    def __init__(self, root: Path) -> None:
        self.plan = make_plan()
        self.store = DirectoryStore(root)
        self.cluster = FakeCluster()
        self.attempt = Attempt(self.store, self.plan.run_id, 1)
        self.attempt.record(self.plan, {"format": 1, "target": "cluster", "opened_at": 0.0})
        self.kept_logs: list[tuple[str, int]] = []
        self.manifest = "aaaaa"
        self.earlier: dict[str, Any] = {}
        self.tick = 0
        self.on_tick: Act = lambda scene: scene.finish_all()

    def jobs(self) -> dict[str, dict[str, Any]]:
        made = {}
        for stage in self.plan.stages:
            labels = {
                "tuneyard.dev/run": self.plan.run_id,
                "tuneyard.dev/stage": stage.name,
                "tuneyard.dev/manifest": self.manifest,
                "tuneyard.dev/try": "1",
            }
            made[stage.name] = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": f"{stage.name}-{self.manifest}-t1", "labels": labels},
                "spec": {"template": {"metadata": {"labels": dict(labels)}, "spec": {}}},
            }
        return made

    def conduct(self) -> dict[str, Any] | None:
        self.backend = ClusterBackend(
            self.plan,
            self.cluster,  # type: ignore[arg-type]
            self.jobs(),
            {"kind": "Job", "name": "conductor", "uid": "u"},
            start_timeout_s=START_TIMEOUT_S,
            keep_log=self._keep_log,
            earlier=self.earlier,
            clock=lambda: self.cluster.now,
        )
        self.conductor = Conductor(
            self.plan,
            self.store,
            self.attempt,
            self.backend,
            sleep=self._sleep,
            clock=lambda: self.cluster.now,
        )
        return self.conductor.run()

    def _keep_log(self, stage: str, number: int, pod: str) -> None:
        assert pod in self.cluster.things["Pod"]
        self.kept_logs.append((stage, number))

    def _sleep(self, _seconds: float) -> None:
        self.tick += 1
        assert self.tick < 2000, "the conductor does not end"
        self.cluster.now += 1
        self.on_tick(self)

    # -- what happens ---------------------------------------------------------------------
    def live(self) -> list[str]:
        """Jobs that have not ended."""
        return [name for name, job in self.cluster.things["Job"].items() if not job["status"]]

    def finish(self, job: str) -> None:
        name = self.stage_of(job)
        directory = self.store.root / f"to-commit-{name}"
        directory.mkdir()
        (directory / "out").write_text(name)
        self.store.commit(f"stages/{self.plan.stage(name).key}", directory, {"seconds": 3.0})
        self.cluster.end(job, 0)

    def finish_all(self) -> None:
        for job in self.live():
            self.finish(job)

    def stage_of(self, job: str) -> str:
        return str(self.cluster.things["Job"][job]["metadata"]["labels"]["tuneyard.dev/stage"])

    def failing(self, stage: str, fail: Callable[[str], None], times: int = 1) -> None:
        """Let `stage` fail as `fail` says that many times; everything else succeeds."""
        left = [times]

        def act(scene: Scene) -> None:
            for job in scene.live():
                if scene.stage_of(job) != stage or not left[0]:
                    scene.finish(job)
                else:
                    left[0] -= 1
                    fail(job)

        self.on_tick = act

    def failure(self, outcome: dict[str, Any] | None, stage: str) -> Failure:
        assert outcome is not None
        assert outcome["stages"][stage]["state"] == "failed", outcome["stages"]
        return Failure.from_json(outcome["stages"][stage]["failure"])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "store")


def test_every_stage_is_one_job_and_a_child_of_the_conductors(scene: Scene) -> None:
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert sorted(scene.cluster.created) == sorted(f"{s.name}-aaaaa-t1" for s in scene.plan.stages)
    owners = [job["metadata"]["ownerReferences"] for job in scene.cluster.things["Job"].values()]
    assert all(owner == [{"kind": "Job", "name": "conductor", "uid": "u"}] for owner in owners)


def test_the_times_of_pods_are_kept_for_the_receipt(scene: Scene) -> None:
    scene.conduct()
    ends = {one.stage: one.end for one in scene.attempt.tries()}
    pods = (ends["prepare"] or {})["pods"]
    assert [(pod["running_s"], pod["exit_code"], pod["lost"]) for pod in pods] == [(5.0, 0, False)]
    assert pods[0]["waiting_s"] == 1.0


def test_a_memory_kill_is_permanent_and_names_the_flag(scene: Scene) -> None:
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
    assert outcome["stages"]["report"] == {"state": "blocked", "blocked_by": "train-lora-s1"}


@pytest.mark.parametrize("code", [137, 143])
def test_a_pod_that_was_killed_or_asked_to_stop_is_tried_again(scene: Scene, code: int) -> None:
    scene.failing("predict-untuned", lambda job: scene.cluster.end(job, code), times=3)
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert [n for n in scene.cluster.created if n.startswith("predict-untuned")] == [
        f"predict-untuned-aaaaa-t{number}" for number in (1, 2, 3, 4)
    ]
    assert ("predict-untuned", 1) in scene.kept_logs


def test_the_termination_message_says_more_than_the_exit_code(scene: Scene) -> None:
    told = Failure(Reason.BAD_DATA, "row 7 has no answer", where="prepare")
    scene.failing("prepare", lambda job: scene.cluster.end(job, 11, message=told.termination_message()))
    failure = scene.failure(scene.conduct(), "prepare")
    assert (failure.reason, failure.what) == (Reason.BAD_DATA, "row 7 has no answer")


def test_a_deleted_job_is_tried_again(scene: Scene) -> None:
    scene.failing("prepare", lambda job: scene.cluster.delete("Job", job) and None)
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert "prepare-aaaaa-t2" in scene.cluster.created


def test_a_pod_that_vanished_without_an_exit_code_is_tried_again(scene: Scene) -> None:
    def vanish(job: str) -> None:
        scene.cluster.end(job, 1)
        for pod in scene.cluster.pods_of(job):
            del scene.cluster.things["Pod"][pod["metadata"]["name"]]

    scene.failing("prepare", vanish)
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"


def test_an_image_that_cannot_be_pulled_is_given_up_after_the_start_timeout(scene: Scene) -> None:
    scene.on_tick = lambda s: (
        [s.cluster.wait_for(job, "ImagePullBackOff", "Back-off pulling image") for job in s.live()] and None
    )
    failure = scene.failure(scene.conduct(), "prepare")
    assert failure.reason is Reason.CANNOT_START
    assert "ImagePullBackOff: Back-off pulling image" in failure.what
    assert START_TIMEOUT_S <= scene.tick < START_TIMEOUT_S + 30
    assert "prepare-aaaaa-t1" in scene.cluster.deleted


def test_a_missing_secret_is_given_up_soon(scene: Scene) -> None:
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


def test_what_a_pod_waits_for_is_noted_while_it_waits(scene: Scene) -> None:
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
            seen.extend(scene.backend.notes.values())
        else:
            scene.finish_all()

    scene.on_tick = act
    scene.conduct()
    assert "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu." in seen
    assert scene.backend.notes == {}


def test_waiting_for_room_that_the_run_itself_takes_is_never_given_up(scene: Scene) -> None:
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
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"


def test_a_job_that_waits_for_its_queue_is_never_given_up(scene: Scene) -> None:
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
                seen.update(scene.backend.notes.values())
            elif made["spec"].pop("suspend", None):
                scene.cluster.add_pod(made)
            else:
                scene.finish(job)

    scene.on_tick = act
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert any(note.startswith("its Job waits for queue gpus") for note in seen)


@pytest.mark.parametrize("at_create", [True, False])
def test_a_quota_that_the_run_itself_uses_up_is_waited_for(scene: Scene, at_create: bool) -> None:
    text = 'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 1, limited: 1'
    refused = refusal(403, {"message": text}, doing="create Job x", where="here")
    patient_until = 3 * START_TIMEOUT_S
    noted: set[str] = set()

    def act(scene: Scene) -> None:
        noted.update(scene.backend.notes.values())
        full = scene.tick < patient_until
        trains = any(scene.stage_of(job) == "train-lora-s1" for job in scene.live())
        if at_create:
            scene.cluster.refusal = refused if full and trains else None
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
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded", outcome
    assert any("exceeded quota: gpus" in note for note in noted), noted


@pytest.mark.parametrize("peer", ["says so", "was deleted by its Job"])
def test_of_several_nodes_the_one_that_failed_first_says_why(scene: Scene, peer: str) -> None:
    def fail(job: str) -> None:
        [first] = scene.cluster.pods_of(job)
        second = scene.cluster.add_pod(scene.cluster.things["Job"][job])
        scene.cluster.end(job, 137)
        gone = Failure(Reason.KILLED, "node 1 is gone").termination_message()
        for pod, index, code, reason, message, after_s in (
            (first, "1", 137, "OOMKilled", "", 5.0),
            (second, "0", 137, "Error", gone, 7.0)
            if peer == "says so"
            else (second, "0", 143, "Error", "", 7.0),
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


def test_a_pod_that_its_node_refuses_is_tried_again_after_a_while_and_says_why(scene: Scene) -> None:
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
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    said = [one.end or {} for one in scene.attempt.tries() if one.stage == "prepare"]
    assert said[0]["failure"]["what"] == (
        "its node did not run it: UnexpectedAdmissionError: Allocate failed: no healthy devices present"
    )
    pauses = [later - sooner for sooner, later in pairwise(made_at)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 10


def test_what_an_overlay_puts_beside_the_program_does_not_speak_for_it(scene: Scene) -> None:
    told = Failure(Reason.BAD_DATA, "row 7 has no answer", where="prepare")

    def fail(job: str) -> None:
        scene.cluster.end(job, 11, message=told.termination_message())
        for pod in scene.cluster.pods_of(job):
            beside = {"name": "logs", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
            pod["status"]["containerStatuses"].insert(0, beside)

    scene.failing("prepare", fail)
    failure = scene.failure(scene.conduct(), "prepare")
    assert (failure.reason, failure.what) == (Reason.BAD_DATA, "row 7 has no answer")


def test_a_failed_init_container_is_named_with_its_log(scene: Scene) -> None:
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


def test_a_deleted_job_whose_pod_is_on_a_lost_node_says_what_to_do(scene: Scene) -> None:
    seen: set[str] = set()

    def act(scene: Scene) -> None:
        if scene.tick == 1:
            scene.cluster.run("prepare-aaaaa-t1")
            scene.cluster.lingering = True
            scene.cluster.delete("Job", "prepare-aaaaa-t1")
            for pod in scene.cluster.pods_of("prepare-aaaaa-t1"):
                pod["metadata"]["deletionTimestamp"] = scene.cluster.stamp()
        if scene.tick < 100:
            seen.update(scene.backend.notes.values())
            return
        for pod in scene.cluster.pods_of("prepare-aaaaa-t1"):
            del scene.cluster.things["Pod"][pod["metadata"]["name"]]
        scene.finish_all()

    scene.on_tick = act
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert any(note.startswith("node lost: node-1") and "kubectl delete node" in note for note in seen), seen


def test_a_manifest_that_the_server_refuses_fails_its_stage(scene: Scene) -> None:
    scene.cluster.refusal = Failure(Reason.UNSUPPORTED, "exceeded quota: pods=10")
    failure = scene.failure(scene.conduct(), "prepare")
    assert failure.what == "exceeded quota: pods=10"


def test_a_pod_over_its_disk_limit_fails_its_stage_for_good(scene: Scene) -> None:
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


def test_an_api_server_that_is_away_refuses_nothing(scene: Scene) -> None:
    scene.cluster.refusal = Failure(Reason.NETWORK, "the API server does not answer")
    with pytest.raises(Failure, match="does not answer"):
        scene.conduct()
    scene.cluster.refusal = None
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"


def test_a_conductor_that_sees_nothing_any_more_does_not_go_on(scene: Scene) -> None:
    def act(scene: Scene) -> None:
        scene.cluster.blind = Failure(Reason.UNAUTHORIZED, "bob may not watch pods")

    scene.on_tick = act
    with pytest.raises(Failure, match="may not watch"):
        scene.conduct()


def test_two_conductors_of_the_same_second_never_end_each_other(scene: Scene) -> None:
    labels = {"tuneyard.dev/run": scene.plan.run_id, "app.kubernetes.io/component": "conductor"}
    made = {
        name: {"metadata": {"name": name, "labels": labels, "creationTimestamp": at}, "status": {}}
        for name, at in (
            ("a", "2026-11-27T05:00:00Z"),
            ("b", "2026-11-27T05:00:00Z"),
            ("c", "2026-11-27T04:00:00Z"),
        )
    }
    scene.cluster.things["Job"] |= made
    for own in made.values():
        take_over(scene.cluster, scene.attempt, own)  # type: ignore[arg-type]
    assert list(scene.cluster.things["Job"]) == ["b"]


@pytest.mark.parametrize("left", [True, False])
def test_an_earlier_attempt_that_has_left_is_kept_for_whoever_looks_at_its_pods(
    scene: Scene, left: bool
) -> None:
    labels = {"tuneyard.dev/run": scene.plan.run_id, "app.kubernetes.io/component": "conductor"}
    made = {
        name: {
            "metadata": {
                "name": name,
                "labels": {**labels, "tuneyard.dev/attempt": number},
                "creationTimestamp": at,
            },
            "status": {},  # its controller has not looked yet
        }
        for name, number, at in (("old", "1", "2026-11-27T04:00:00Z"), ("new", "2", "2026-11-27T05:00:00Z"))
    }
    scene.cluster.things["Job"] |= made
    scene.attempt.beat({}, left=left)
    second = Attempt(scene.store, scene.plan.run_id, 2)
    take_over(scene.cluster, second, made["new"])  # type: ignore[arg-type]
    assert scene.cluster.deleted == ([] if left else ["old"])


class Lost(Exception):
    """The conductor's pod is gone."""


@pytest.mark.parametrize("tick", range(1, 8))
def test_a_conductor_lost_at_any_tick_is_followed_by_one_that_adopts_its_jobs(
    scene: Scene, tick: int
) -> None:
    def act(scene: Scene) -> None:
        if scene.tick == tick:
            raise Lost
        if scene.tick % 2 == 0:
            scene.finish_all()

    scene.on_tick = act
    with pytest.raises(Lost):
        scene.conduct()
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert all(name.endswith("-t1") for name in scene.cluster.created)
    assert len(scene.cluster.created) == len(scene.plan.stages)


def test_a_pod_that_went_while_no_conductor_lived_is_in_the_account(scene: Scene) -> None:
    def act(scene: Scene) -> None:
        if scene.tick == 1:
            scene.cluster.run("prepare-aaaaa-t1")
        if scene.tick == 10:
            scene.earlier = scene.backend.measured()
            raise Lost

    scene.on_tick = act
    with pytest.raises(Lost):
        scene.conduct()
    # Its node went, and the Job has made another pod.
    [gone] = scene.cluster.pods_of("prepare-aaaaa-t1")
    del scene.cluster.things["Pod"][gone["metadata"]["name"]]
    scene.cluster.add_pod(scene.cluster.things["Job"]["prepare-aaaaa-t1"])
    scene.on_tick = lambda s: s.finish_all()
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    [end] = [one.end for one in scene.attempt.tries() if one.stage == "prepare"]
    lost, replaced = (end or {})["pods"]
    assert (lost["pod"], lost["lost"]) == (gone["metadata"]["name"], True)
    assert lost["running_s"] == pytest.approx(9, abs=1)
    assert not replaced["lost"]


def test_on_sigterm_the_stages_go_on_and_nothing_is_created(scene: Scene) -> None:
    def act(scene: Scene) -> None:
        scene.conductor.request_stop()
        scene.finish_all()

    scene.on_tick = act
    assert scene.conduct() is None
    assert scene.cluster.deleted == []
    assert all(scene.plan.stage(scene.stage_of(name)).needs == {} for name in scene.cluster.created)


def test_cancel_deletes_every_live_job(scene: Scene) -> None:
    scene.on_tick = lambda s: closing.cancel(s.attempt) and None
    assert scene.conduct() is None
    assert sorted(scene.cluster.deleted) == sorted(scene.cluster.created)
    assert scene.live() == []
    assert {one.reason for one in scene.attempt.tries()} == {Reason.TERMINATED}


def test_a_live_job_of_another_placement_is_ended_before_another_is_created(scene: Scene) -> None:
    def lose(_scene: Scene) -> None:
        raise Lost

    scene.on_tick = lose
    with pytest.raises(Lost):
        scene.conduct()
    old = set(scene.cluster.created)
    scene.manifest, scene.on_tick = "bbbbb", lambda s: s.finish_all()
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert old == set(scene.cluster.deleted)
    assert all("bbbbb" in name for name in scene.cluster.created if name not in old)


def test_nothing_is_created_while_a_pod_of_another_placement_still_saves_its_progress(scene: Scene) -> None:
    def lose(_scene: Scene) -> None:
        raise Lost

    scene.on_tick = lose
    with pytest.raises(Lost):
        scene.conduct()
    old = set(scene.cluster.created)
    scene.cluster.lingering = True
    scene.manifest, started_at = "bbbbb", scene.tick

    def act(scene: Scene) -> None:
        if scene.tick < started_at + 10:
            assert set(scene.cluster.created) == old
        else:
            for job in old:
                for pod in scene.cluster.pods_of(job):
                    pod["status"]["phase"] = "Failed"
            scene.finish_all()

    scene.on_tick = act
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"


def test_a_pod_on_a_silent_then_lost_node_is_waited_for_and_the_advice_says_what_to_do(scene: Scene) -> None:
    seen: list[str] = []

    def act(scene: Scene) -> None:
        for job in scene.live():
            if scene.stage_of(job) != "prepare":
                scene.finish(job)
            elif scene.tick < 3 * START_TIMEOUT_S:
                scene.cluster.run(job)
                for pod in scene.cluster.pods_of(job):
                    # As the node said last, and as the cluster's own controller says of a silent node.
                    pod["status"]["containerStatuses"][0]["ready"] = True
                    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
                    if scene.tick > 2 * START_TIMEOUT_S:
                        pod["metadata"].setdefault("deletionTimestamp", scene.cluster.stamp())
                seen.extend(scene.backend.notes.values())
            else:
                scene.finish(job)

    scene.on_tick = act
    outcome = scene.conduct()
    assert outcome is not None
    assert outcome["reason"] == "succeeded"
    assert scene.cluster.created.count("prepare-aaaaa-t1") == 1
    assert "prepare-aaaaa-t2" not in scene.cluster.created
    # One of the two is said all the time, also while it is being taken away.
    assert {note.partition(":")[0] for note in seen} == {"node node-1 is not heard of", "node lost"}
    assert len(seen) > 2 * START_TIMEOUT_S
    assert seen[0].startswith("node node-1 is not heard of")
    assert seen[-1].startswith("node lost: node-1")
    assert "out-of-service" in seen[-1]
    assert scene.backend.notes == {}
