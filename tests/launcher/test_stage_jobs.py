"""The conductor with the cluster backend on an in-memory cluster: one Job per stage."""

from __future__ import annotations

import pytest
from job_scene import Lost, Scene

from launcher.outcome import Failure, Reason
from launcher.runs import finalize
from launcher.store.runs import Attempt
from launcher.targets.cluster.conductor_jobs import take_over


def test_every_stage_is_one_job_and_a_child_of_the_conductor(scene: Scene) -> None:
    scene.succeeds()
    assert sorted(scene.cluster.created) == sorted(f"{s.name}-aaaaa-t1" for s in scene.plan.stages)
    owners = [job["metadata"]["ownerReferences"] for job in scene.cluster.things["Job"].values()]
    assert all(owner == [{"kind": "Job", "name": "conductor", "uid": "u"}] for owner in owners)


def test_pod_times_are_recorded(scene: Scene) -> None:
    scene.conduct()
    ends = {one.stage: one.end for one in scene.attempt.tries()}
    pods = ends["prepare"].pods
    assert [(pod.running_s, pod.exit_code, pod.lost) for pod in pods] == [(5.0, 0, False)]
    assert pods[0].waiting_s == 1.0


def test_unreachable_api_server_fails_no_stage(scene: Scene) -> None:
    scene.cluster.rejection = Failure(Reason.NETWORK, "the API server does not answer")
    with pytest.raises(Failure, match="does not answer"):
        scene.conduct()
    scene.cluster.rejection = None
    scene.succeeds()


def test_stale_views_end_the_conductor(scene: Scene) -> None:
    def act(scene: Scene) -> None:
        scene.cluster.stale = Failure(Reason.UNAUTHORIZED, "bob may not watch pods")

    scene.on_tick = act
    with pytest.raises(Failure, match="may not watch"):
        scene.conduct()


def test_conductors_of_the_same_second_never_delete_each_other(scene: Scene) -> None:
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
def test_take_over_keeps_the_job_of_an_exited_attempt(scene: Scene, left: bool) -> None:
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
    scene.attempt.put_conductor_heartbeat({}, left=left)
    second = Attempt(scene.store, scene.plan.run_id, 2)
    take_over(scene.cluster, second, made["new"])  # type: ignore[arg-type]
    assert scene.cluster.deleted == ([] if left else ["old"])


@pytest.mark.parametrize("tick", range(1, 8))
def test_next_conductor_adopts_the_jobs(scene: Scene, tick: int) -> None:
    def act(scene: Scene) -> None:
        if scene.tick == tick:
            raise Lost
        if scene.tick % 2 == 0:
            scene.finish_all()

    scene.on_tick = act
    with pytest.raises(Lost):
        scene.conduct()
    scene.succeeds()
    assert all(name.endswith("-t1") for name in scene.cluster.created)
    assert len(scene.cluster.created) == len(scene.plan.stages)


def test_pod_lost_without_a_conductor_is_accounted_for(scene: Scene) -> None:
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
    scene.succeeds()
    [end] = [one.end for one in scene.attempt.tries() if one.stage == "prepare"]
    lost, replaced = end.pods
    assert (lost.pod, lost.lost) == (gone["metadata"]["name"], True)
    assert lost.running_s == pytest.approx(9, abs=1)
    assert not replaced.lost


def test_sigterm_keeps_stages_and_creates_nothing(scene: Scene) -> None:
    def act(scene: Scene) -> None:
        scene.conductor.request_stop()
        scene.finish_all()

    scene.on_tick = act
    assert scene.conduct() is None
    assert scene.cluster.deleted == []
    assert all(scene.plan.stage(scene.stage_of(name)).needs == {} for name in scene.cluster.created)


def test_cancel_deletes_every_live_job(scene: Scene) -> None:
    scene.on_tick = lambda s: finalize.cancel(s.attempt) and None
    assert scene.conduct() is None
    assert sorted(scene.cluster.deleted) == sorted(scene.cluster.created)
    assert scene.live() == []
    assert {one.reason for one in scene.attempt.tries()} == {Reason.TERMINATED}


def test_job_of_another_placement_is_deleted_first(scene: Scene) -> None:
    def lose(_scene: Scene) -> None:
        raise Lost

    scene.on_tick = lose
    with pytest.raises(Lost):
        scene.conduct()
    old = set(scene.cluster.created)
    scene.manifest, scene.on_tick = "bbbbb", lambda s: s.finish_all()
    scene.succeeds()
    assert old == set(scene.cluster.deleted)
    assert all("bbbbb" in name for name in scene.cluster.created if name not in old)


def test_job_waits_for_a_pod_of_another_placement_to_end(scene: Scene) -> None:
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
    scene.succeeds()
