"""The conductor: order of starts, retries by reason, blocking, resumption and cancellation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tiny import LORA, UNTUNED, make_plan

from launcher.costs import receipt
from launcher.outcome import DISPOSITIONS, RETRY_BUDGET, Failure, Reason, Retry
from launcher.runs.conductor import TICK_S, Conductor, Ended
from launcher.spec.plan import Plan, Stage
from launcher.store import DirectoryStore, runs
from launcher.store.records import Outcome
from launcher.store.runs import Attempt


@dataclass
class FakeTime:
    """Sleeping only moves the clock; what is to happen at a moment happens then."""

    now: float = 1000.0
    events: dict[int, Callable[[], Any]] = field(default_factory=dict)
    ticks: int = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += 1
        if event := self.events.pop(self.ticks, None):
            event()
        assert self.ticks < 2000, "the conductor does not come to an end"


class FakeBackend:
    """Stages that end two polls after they were started, as scripted: a Reason, or None for a good commit.

    Without a script a stage succeeds. `Reason.SUCCEEDED` in a script is an exit 0 without a commit.
    """

    def __init__(
        self, plan: Plan, store: DirectoryStore, script: dict[str, list[Reason | None]], room: int = 99
    ):
        self.plan, self.store, self.script, self.room = plan, store, script, room
        self.started: list[tuple[str, int]] = []
        self.live: dict[str, int] = {}
        self.stopped = False
        self.most_at_once = 0

    @property
    def outlives_conductor(self) -> bool:
        return False

    def adopt(self, stage: Stage, number: int) -> bool:
        return False

    def started_at(self) -> dict[str, float]:
        return {}

    def held_s(self) -> dict[str, float]:
        return {}

    def has_room(self, stage: Stage) -> bool:
        return len(self.live) < self.room

    def start(self, stage: Stage, number: int) -> None:
        for needed in stage.needs.values():
            assert self.store.exists(f"stages/{self.plan.stage(needed).key}"), f"{stage.name} before {needed}"
        assert stage.name not in self.live
        assert not self.store.exists(f"stages/{stage.key}"), "a finished stage was started"
        self.started.append((stage.name, number))
        self.live[stage.name] = 2
        self.most_at_once = max(self.most_at_once, len(self.live))

    def running(self) -> set[str]:
        return set(self.live)

    def ended(self) -> list[Ended]:
        ends = []
        for name in list(self.live):
            self.live[name] -= 1
            if self.live[name] == 0:
                del self.live[name]
                ends.append(self._end(name))
        return ends

    def end_silent(self, stage: str, failure: Failure) -> None:
        raise AssertionError("these stages write no heartbeats")

    def stop(self) -> None:
        self.stopped = True

    def _end(self, name: str) -> Ended:
        script = self.script.get(name, [])
        reason = Reason.TERMINATED if self.stopped else (script.pop(0) if script else None)
        if reason is None:
            commit(self.store, self.plan, name)
            reason = Reason.SUCCEEDED
        failure = None if reason is Reason.SUCCEEDED else Failure(reason, f"{name} broke", where=name)
        return Ended(name, DISPOSITIONS[reason].exit_code, reason, failure)


def commit(store: DirectoryStore, plan: Plan, name: str, meta: dict[str, Any] | None = None) -> None:
    directory = store.root / f"to-commit-{name}"
    directory.mkdir()
    (directory / "out").write_text(name)
    store.commit(f"stages/{plan.stage(name).key}", directory, meta or {})


class Scene:
    """One run on one store, with any number of conductors in turn."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.plan = make_plan(**changes)
        self.store = DirectoryStore(root)
        self.store.put_json(f"runs/{self.plan.run_id}/plan.json", self.plan.model_dump(mode="json"))
        self.attempt = Attempt(self.store, self.plan.run_id, 1)
        self.attempt.put("request.json", {"format": 1})
        self.time = FakeTime()

    def conduct(
        self, script: dict[str, list[Reason | None]] | None = None, room: int = 99
    ) -> dict[str, Any] | None:
        self.backend = FakeBackend(self.plan, self.store, script or {}, room)
        self.conductor = Conductor(
            self.plan,
            self.store,
            self.attempt,
            self.backend,
            sleep=self.time.sleep,
            clock=lambda: self.time.now,
        )
        return self.conductor.run()

    def outcome(self, script: dict[str, list[Reason | None]] | None = None) -> Outcome:
        outcome = self.conduct(script)
        assert outcome is not None
        return outcome

    def tries(self) -> Counter[str]:
        return Counter(name for name, _ in self.backend.started)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "store")


def test_stage_with_the_longest_chain_of_dependents_starts_first(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.conduct(room=1) is not None
    order = [name for name, _ in scene.backend.started]
    assert order.index("train-lora-s1") < order.index("predict-untuned")
    assert order[-1] == "report"


def states(outcome: Outcome) -> dict[str, str]:
    return {name: end.state for name, end in outcome.stages.items()}


def test_every_stage_starts_once_after_its_inputs(scene: Scene) -> None:
    outcome = scene.outcome()
    assert outcome.reason.value == "succeeded"
    assert set(states(outcome).values()) == {"finished"}
    assert sorted(scene.backend.started) == sorted((stage.name, 1) for stage in scene.plan.stages)


def test_independent_stages_run_together(scene: Scene) -> None:
    scene.outcome()
    assert scene.backend.most_at_once == 2


def test_backend_room_limits_running_stages(scene: Scene) -> None:
    assert scene.conduct(room=1) is not None
    assert scene.backend.most_at_once == 1


def test_finished_stages_are_not_started(scene: Scene) -> None:
    for name in ("prepare", "fetch-untuned", "train-lora-s1"):
        commit(scene.store, scene.plan, name)
    assert scene.outcome().reason.value == "succeeded"
    assert not {"prepare", "fetch-untuned", "train-lora-s1"} & set(scene.tries())


def test_finished_run_starts_nothing(scene: Scene) -> None:
    for stage in scene.plan.stages:
        commit(scene.store, scene.plan, stage.name)
    assert scene.outcome().reason.value == "succeeded"
    assert scene.backend.started == []
    assert scene.time.ticks == 0


@pytest.mark.parametrize("reason", [r for r in Reason if r is not Reason.SUCCEEDED])
def test_tries_per_reason_match_the_retry_budget(scene: Scene, reason: Reason) -> None:
    outcome = scene.outcome({"train-lora-s1": [reason] * 100})
    assert scene.tries()["train-lora-s1"] == 1 + RETRY_BUDGET[DISPOSITIONS[reason].retry]
    assert outcome.reason is reason
    assert states(outcome)["train-lora-s1"] == "failed"


def test_permanent_reasons_have_no_retries() -> None:
    for reason in (
        Reason.BAD_DATA,
        Reason.OUT_OF_MEMORY,
        Reason.DIVERGED,
        Reason.DISK_FULL,
        Reason.NO_SUCH_MODEL,
    ):
        assert DISPOSITIONS[reason].retry is Retry.NEVER
        assert RETRY_BUDGET[DISPOSITIONS[reason].retry] == 0


def test_retry_budget_is_per_reason(scene: Scene) -> None:
    script = [Reason.KILLED] * 5 + [Reason.TERMINATED] * 20 + [Reason.INTERNAL]
    outcome = scene.outcome({"train-lora-s1": [*script, None]})
    assert outcome.reason.value == "succeeded"
    assert scene.tries()["train-lora-s1"] == 27


def test_failure_blocks_only_its_dependents(scene: Scene) -> None:
    outcome = scene.outcome({"train-lora-s1": [Reason.DIVERGED]})
    assert states(outcome) == {
        "prepare": "finished",
        "fetch-untuned": "finished",
        "predict-untuned": "finished",
        "score-untuned": "finished",
        "train-lora-s1": "failed",
        "predict-lora-s1": "blocked",
        "score-lora-s1": "blocked",
        "report": "blocked",
    }
    assert {end.blocked_by for end in outcome.stages.values()} == {None, "train-lora-s1"}
    assert outcome.failure.what == "train-lora-s1 broke"


def test_other_contenders_finish_after_a_failure(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    scene = Scene(tmp_path / "store", contenders=[UNTUNED, *({**LORA, "name": name} for name in names)])
    outcome = scene.outcome({"predict-untuned": [Reason.BAD_DATA]})
    assert states(outcome)["score-c-s1"] == "finished"
    assert states(outcome)["report"] == "blocked"


def test_exit_0_without_a_commit_is_a_failure(scene: Scene) -> None:
    outcome = scene.outcome({"prepare": [Reason.SUCCEEDED] * 5})
    assert outcome.reason.value == "internal"
    assert "committed nothing" in outcome.failure.what


def test_stage_killed_after_its_commit_has_succeeded(scene: Scene) -> None:
    def killed_after_commit(name: str) -> Ended:
        commit(scene.store, scene.plan, name)
        return Ended(name, 137, Reason.KILLED)

    scene.backend = FakeBackend(scene.plan, scene.store, {})
    scene.backend._end = killed_after_commit  # type: ignore[method-assign]
    conductor = Conductor(
        scene.plan,
        scene.store,
        scene.attempt,
        scene.backend,
        sleep=scene.time.sleep,
        clock=lambda: scene.time.now,
    )
    outcome = conductor.run()
    assert outcome is not None
    assert outcome.reason.value == "succeeded"
    assert set(scene.tries().values()) == {1}
    assert receipt.build(scene.plan, scene.store, scene.attempt).seconds_lost == 0


def test_next_step_names_the_run_and_the_stage(scene: Scene) -> None:
    outcome = scene.outcome({"prepare": [Reason.INTERNAL] * 5})
    assert outcome.failure.next_step.endswith(f"launcher logs {scene.plan.run_id} --stage prepare")


class Lost(Exception):
    """The conductor's machine is gone."""


def lose(scene: Scene, tick: int, script: dict[str, list[Reason | None]] | None = None) -> None:
    """A conductor that is gone at a tick, and its stages with it."""

    def gone() -> None:
        raise Lost

    scene.time.ticks = 0
    scene.time.events = {tick: gone}
    with pytest.raises(Lost):
        scene.conduct(script)
    scene.time.ticks = 0


def test_lost_conductor_spends_no_retry_budget(scene: Scene) -> None:
    for _ in range(10):
        lose(scene, 1)
    assert scene.outcome().reason.value == "succeeded"
    assert ("prepare", 11) in scene.backend.started


@pytest.mark.parametrize("tick", range(1, 11))
def test_conductor_lost_at_any_tick_is_resumed(scene: Scene, tick: int) -> None:
    lose(scene, tick)
    done_before = {s.name for s in scene.plan.stages if scene.store.exists(f"stages/{s.key}")}
    assert scene.outcome().reason.value == "succeeded"
    assert not done_before & set(scene.tries())


def test_spent_retries_survive_a_lost_conductor(scene: Scene) -> None:
    lose(scene, 3, {"prepare": [Reason.INTERNAL, None]})
    assert scene.outcome({"prepare": [Reason.INTERNAL, None]}).reason.value == "internal"


def test_final_failure_survives_a_lost_conductor(scene: Scene) -> None:
    scene.outcome({"prepare": [Reason.BAD_DATA]})
    outcome = scene.outcome()
    assert outcome.reason.value == "bad-data"
    assert "prepare" not in scene.tries()


@pytest.mark.parametrize("tick", range(1, 11))
def test_stop_keeps_the_attempt_open_and_spends_no_retries(scene: Scene, tick: int) -> None:
    scene.time.events = {tick: lambda: scene.conductor.request_stop()}
    assert scene.conduct() is None
    assert scene.backend.stopped
    assert scene.backend.live == {}
    assert scene.attempt.outcome is None
    scene.time.ticks = 0
    assert scene.outcome().reason.value == "succeeded"


@pytest.mark.parametrize("tick", range(1, 11))
def test_cancel_stops_running_stages_and_starts_none(scene: Scene, tick: int) -> None:
    from launcher.runs.finalize import cancel

    scene.time.events = {tick: lambda: cancel(scene.attempt)}
    assert scene.conduct() is None
    assert scene.backend.live == {}
    before = len(scene.backend.started)
    assert scene.attempt.outcome is not None
    assert scene.attempt.outcome.reason.value == "cancelled"
    assert scene.conduct() is None
    assert scene.backend.started == []
    assert before <= len(scene.plan.stages)


def test_cancelled_stages_are_stopped_not_failed(scene: Scene) -> None:
    from launcher.runs.finalize import cancel

    scene.time.events = {4: lambda: cancel(scene.attempt)}
    scene.conduct()
    seen = runs.view(scene.store, scene.plan.run_id)
    assert {status.state for status in seen.stages} == {"finished", "stopped"}


def test_closed_attempt_starts_nothing(scene: Scene) -> None:
    scene.attempt.put("outcome.json", {"reason": "cancelled"})
    assert scene.conduct() is None
    assert scene.backend.started == []


def test_view_matches_the_outcome(scene: Scene) -> None:
    outcome = scene.outcome({"train-lora-s1": [Reason.DIVERGED]})
    scene.attempt.close(outcome)
    seen = runs.view(scene.store, scene.plan.run_id)
    assert {status.stage.name: status.state for status in seen.stages} == states(outcome)
    (failed,) = (status for status in seen.stages if status.state == "failed")
    assert failed.failure is not None
    assert failed.failure.reason is Reason.DIVERGED


def test_conductor_does_not_idle(scene: Scene) -> None:
    scene.outcome()
    assert scene.time.now - 1000 < 30 * TICK_S
