"""A stage whose heartbeats stop is ended and tried again; one that loads, commits or waits is left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from job_scene import Scene

from launcher.outcome import Failure, Reason
from launcher.runs.silence import LIMIT_VARIABLE, LIMITS_S, SilentStages
from launcher.spec.stages import StageKind
from launcher.store.records import Heartbeat

LIMIT_S = 60.0
#: Ticks (of a second each) during which a stage shows what the test says.
QUIET_S = 300


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, str(LIMIT_S))


def beat(scene: Scene, stage: str, step: int, *, total: int = 10, eta_s: float | None = 9.0) -> None:
    scene.attempt.put_heartbeat(
        Heartbeat(stage=stage, step=step, total=total, unit="row", eta_s=eta_s, at=scene.cluster.now)
    )


def quiet_after(first: Callable[[Scene, str], None]) -> Callable[[Scene], None]:
    """The first try of `prepare` does `first`, is then quiet and at last succeeds; every other Job succeeds."""
    begun: list[int] = []

    def act(scene: Scene) -> None:
        for job in scene.live():
            if job != "prepare-aaaaa-t1":
                scene.finish(job)
            elif not begun:
                begun.append(scene.tick)
                first(scene, job)
            elif scene.tick - begun[0] > QUIET_S:
                scene.finish(job)

    return act


def tries(scene: Scene) -> list[Reason]:
    return [one.end.reason for one in scene.attempt.tries() if one.stage == "prepare" and one.end]


@pytest.mark.usefixtures("short_limit")
def test_silent_stage_is_ended_and_tried_again(scene: Scene) -> None:
    def first(scene: Scene, job: str) -> None:
        scene.cluster.run(job)
        beat(scene, "prepare", 3)

    scene.on_tick = quiet_after(first)
    scene.succeeds()
    assert tries(scene) == [Reason.NO_HEARTBEAT, Reason.SUCCEEDED]
    assert scene.cluster.deleted == ["prepare-aaaaa-t1"]
    assert LIMIT_S < scene.tick < 2 * LIMIT_S
    failure = next(one.end.failure for one in scene.attempt.tries() if one.end and one.end.failure)
    assert failure.what.startswith("no heartbeat for ")
    assert failure.what.endswith("since row 3 of 10")


@pytest.mark.usefixtures("short_limit")
def test_stage_that_is_silent_twice_fails(scene: Scene) -> None:
    def act(scene: Scene) -> None:
        for job in scene.live():
            if scene.stage_of(job) != "prepare":
                scene.finish(job)
            elif not scene.cluster.pods_of(job)[0]["status"].get("containerStatuses"):
                scene.cluster.run(job)
                beat(scene, "prepare", 3)

    scene.on_tick = act
    failure = scene.failure(scene.conduct(), "prepare")
    assert failure.reason is Reason.NO_HEARTBEAT
    assert "launcher logs" in failure.next_step
    assert tries(scene) == [Reason.NO_HEARTBEAT] * 2


@pytest.mark.usefixtures("short_limit")
def test_next_try_waits_until_the_silent_pod_is_gone(scene: Scene) -> None:
    def first(scene: Scene, job: str) -> None:
        scene.cluster.run(job)
        scene.cluster.lingering = True
        beat(scene, "prepare", 3)

    quiet = quiet_after(first)

    def act(scene: Scene) -> None:
        if "prepare-aaaaa-t1" in scene.cluster.deleted and scene.tick < QUIET_S:
            assert "prepare-aaaaa-t2" not in scene.cluster.created
            return
        if scene.cluster.lingering and scene.tick >= QUIET_S:
            scene.cluster.lingering = False
            for pod in scene.cluster.pods_of("prepare-aaaaa-t1"):
                del scene.cluster.things["Pod"][pod["metadata"]["name"]]
        quiet(scene)

    scene.on_tick = act
    scene.succeeds()
    assert tries(scene) == [Reason.NO_HEARTBEAT, Reason.SUCCEEDED]


def loading(scene: Scene, job: str) -> None:
    scene.cluster.run(job)


def loading_after_a_first_heartbeat(scene: Scene, job: str) -> None:
    scene.cluster.run(job)
    beat(scene, "prepare", 0, eta_s=None)


def committing(scene: Scene, job: str) -> None:
    scene.cluster.run(job)
    beat(scene, "prepare", 10, eta_s=0.0)


def waiting_for_a_machine(scene: Scene, _job: str) -> None:
    """Its pod was evicted: the heartbeat is that of the earlier one."""
    beat(scene, "prepare", 3)


def loading_in_a_new_pod(scene: Scene, job: str) -> None:
    beat(scene, "prepare", 3)
    scene.cluster.now += 5
    scene.cluster.run(job)


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize(
    "first",
    [loading, loading_after_a_first_heartbeat, committing, waiting_for_a_machine, loading_in_a_new_pod],
    ids=lambda first: first.__name__,
)
def test_stage_that_loads_commits_or_waits_is_not_ended(
    scene: Scene, first: Callable[[Scene, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job_scene.START_TIMEOUT_S", 2.0 * QUIET_S)
    scene.on_tick = quiet_after(first)
    scene.succeeds()
    assert tries(scene) == [Reason.SUCCEEDED]
    assert scene.cluster.deleted == []


#: The plan of these tests tunes no hosted model.
@pytest.mark.parametrize("kind", sorted(LIMITS_S.keys() - {"tune"}))
def test_slow_steps_are_given_time(scene: Scene, kind: StageKind) -> None:
    stage = next(one for one in scene.plan.stages if one.kind == kind)
    now = scene.cluster.now
    silent = SilentStages(scene.plan, scene.attempt, lambda: now)
    #: Ten steps are left that take an hour each.
    beat(scene, stage.name, 10, total=20, eta_s=36000.0)

    def found_after(seconds: float) -> bool:
        nonlocal now
        now += seconds
        return stage.name in silent.find(lambda: {stage.name: scene.cluster.now})

    limit_s = max(LIMITS_S[kind], 20 * 3600.0)
    assert not found_after(100)  # seen
    assert not found_after(limit_s - 1)
    assert found_after(100)


@pytest.mark.parametrize("text", ["soon", "0", "-5", "nan", "inf"])
def test_limit_that_is_no_time_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(Failure, match="number of seconds") as caught:
        SilentStages(scene.plan, scene.attempt, lambda: 0.0)
    assert caught.value.reason is Reason.USAGE
