"""Walks a plan's stage graph: starts what is ready, retries by reason, blocks what depends on a failure.

It knows no backend: a `Backend` starts and watches stages. All state is in the store and in
the backend, so that a conductor can die at any moment and another one continues.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from launcher.costs import budget
from launcher.outcome import DISPOSITIONS, RETRY_BUDGET, Failure, Reason, Retry
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.records import Outcome, PodTimes, StageOutcome, TryEnd
from launcher.store.runs import Attempt

#: How often the walk looks around.
TICK_S = 0.1
#: How often what was spent is compared with the cap.
_BUDGET_LOOK_S = 10.0
#: Stages that may cost money: none starts where the estimate is over the cap.
_PAID = ("train", "tune", "predict")


@dataclass(frozen=True)
class Ended:
    """A stage's process or Job came to an end."""

    stage: str
    exit_code: int
    reason: Reason
    failure: Failure | None = None
    #: What its pods took, if it had pods.
    pods: tuple[PodTimes, ...] = ()


class Backend(Protocol):
    """Starts stages somewhere and tells how they ended."""

    @property
    def outlives_conductor(self) -> bool:
        """Whether stages go on while no conductor lives, for the next one to adopt."""
        ...

    def adopt(self, stage: Stage, number: int) -> bool:
        """Take up a try that an earlier conductor began; False where nothing is left of it.

        Its end, past or to come, is then told by `ended`.
        """
        ...

    def has_room(self, stage: Stage) -> bool:
        """Whether `stage` can start now, beside what runs already."""
        ...

    def start(self, stage: Stage, number: int) -> None: ...

    def running(self) -> set[str]: ...

    def held_s(self) -> dict[str, float]:
        """For how many seconds each stage that runs has held its machine."""
        ...

    def ended(self) -> list[Ended]:
        """Ends since the last call."""
        ...

    def stop(self) -> None:
        """Ask everything that runs to stop; ends still come through `ended`."""
        ...


@dataclass
class Walk:
    """What the conductor knows while it walks."""

    failed: dict[str, Failure] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    tries: Counter[str] = field(default_factory=Counter)
    spent: Counter[tuple[str, Retry]] = field(default_factory=Counter)


class Conductor:
    """One attempt at one run, from wherever it stands to its outcome."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        attempt: Attempt,
        backend: Backend,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.plan = plan
        self.store = store
        self.attempt = attempt
        self.backend = backend
        self.sleep = sleep
        self.clock = clock
        self.walk = Walk()
        self._stages_behind = _stages_behind(plan)
        self._stop = False
        self._budget_looked_at = clock()

    def request_stop(self) -> None:
        """Leave without closing the attempt: a later conductor continues.

        Stages that cannot outlive this conductor save their progress and end.
        """
        self._stop = True

    def run(self) -> Outcome | None:
        """Walk to the end. Returns the outcome, not stored yet; None if it was stopped or cancelled."""
        self._recall()
        while True:
            for end in self.backend.ended():
                self._note(end)
            if self._stop and self.backend.outlives_conductor:
                return None
            if self._stop or self.attempt.outcome is not None:
                self._leave()
                return None
            self._keep_budget()
            self._spread_failures()
            self._start_ready()
            if not self.backend.running() and not self._open_stages():
                return self._outcome()
            self.sleep(max(TICK_S, self.store.poll_interval_s))

    def _recall(self) -> None:
        """Take up what earlier conductors of this attempt recorded."""
        for one in self.attempt.tries():
            self.walk.tries[one.stage] = max(self.walk.tries[one.stage], one.number)
            if one.end is None:
                if self.backend.adopt(self.plan.stage(one.stage), one.number):
                    continue
                # Its conductor was lost, and the stage with it: nobody's failure, no budget spent.
                heartbeat = self.attempt.heartbeat(one.stage)
                seen_at = heartbeat.at if heartbeat else one.started_at
                finished = self.store.exists(f"stages/{self.plan.stage(one.stage).key}")
                self.attempt.end_try(
                    one.stage,
                    one.number,
                    TryEnd(
                        ended_at=max(seen_at, one.started_at),
                        reason=Reason.SUCCEEDED if finished else Reason.KILLED,
                        conductor_lost=True,
                    ),
                )
            elif not one.end.conductor_lost:
                self.walk.spent[one.stage, DISPOSITIONS[one.end.reason].retry] += 1
                if one.end.final and one.end.failure:
                    self.walk.failed[one.stage] = one.end.failure

    def _is_finished(self, stage: Stage) -> bool:
        if stage.name not in self.walk.finished and self.store.exists(f"stages/{stage.key}"):
            self.walk.finished.add(stage.name)
        return stage.name in self.walk.finished

    def _open_stages(self) -> list[Stage]:
        walk = self.walk
        return [
            stage
            for stage in self.plan.stages
            if stage.name not in walk.failed
            and stage.name not in walk.blocked
            and not self._is_finished(stage)
        ]

    def _start_ready(self) -> None:
        """Start what has its inputs, first what most stages stand behind in a row: the run waits for that longest."""
        running = self.backend.running()
        for stage in sorted(self._open_stages(), key=lambda stage: -self._stages_behind[stage.name]):
            if stage.name in running or not all(
                self._is_finished(self.plan.stage(name)) for name in stage.needs.values()
            ):
                continue
            if self.backend.has_room(stage):
                if stage.kind in _PAID and (
                    refusal := budget.would_exceed(self.plan, self.store, self.attempt)
                ):
                    self.walk.failed[stage.name] = refusal
                    continue
                self.walk.tries[stage.name] += 1
                number = self.walk.tries[stage.name]
                self.attempt.begin_try(stage.name, number, self.clock())
                self.backend.start(stage, number)

    def _keep_budget(self) -> None:
        """Now and then, stop everything where the run has cost more than its cap."""
        now = self.clock()
        if now < self._budget_looked_at + _BUDGET_LOOK_S:
            return
        self._budget_looked_at = now
        refusal = budget.over_budget(self.plan, self.store, self.attempt, self.backend.held_s())
        if refusal is not None:
            for stage in self._open_stages():
                self.walk.failed[stage.name] = refusal
            self._leave()

    def _note(self, end: Ended) -> None:
        """Record an end and decide whether the stage is tried again."""
        reason, failure = end.reason, end.failure
        finished = self.store.exists(f"stages/{self.plan.stage(end.stage).key}")
        if reason is Reason.SUCCEEDED and not finished:
            reason = Reason.INTERNAL
            failure = Failure(
                reason, "the stage ended with exit code 0 and committed nothing", where=end.stage
            )
        if finished:
            # However the process ended after its commit: the work is done.
            reason, failure = Reason.SUCCEEDED, None
        retry = DISPOSITIONS[reason].retry
        final = False
        if not finished and not self._stop and self.attempt.outcome is None:
            self.walk.spent[end.stage, retry] += 1
            final = self.walk.spent[end.stage, retry] > RETRY_BUDGET[retry]
        if failure is None and reason is not Reason.SUCCEEDED:
            failure = Failure(reason, DISPOSITIONS[reason].meaning, where=end.stage)
        if failure is not None:
            failure = failure.about(self.plan.run_id, end.stage)
        self.attempt.end_try(
            end.stage,
            self.walk.tries[end.stage],
            TryEnd(
                ended_at=self.clock(),
                exit_code=end.exit_code,
                reason=reason,
                final=final,
                failure=failure,
                # A requested stop is no failure of the stage.
                conductor_lost=self._stop,
                pods=end.pods,
            ),
        )
        if final and failure is not None:
            self.walk.failed[end.stage] = failure

    def _spread_failures(self) -> None:
        for stage in self.plan.stages:
            for needed in stage.needs.values():
                culprit = self.walk.blocked.get(needed, needed if needed in self.walk.failed else None)
                if (
                    culprit is not None
                    and stage.name not in self.walk.blocked
                    and not self._is_finished(stage)
                ):
                    self.walk.blocked[stage.name] = culprit

    def _leave(self) -> None:
        """Stop what runs and wait until it has ended; the attempt stays as it is."""
        self.backend.stop()
        while self.backend.running():
            for end in self.backend.ended():
                self._note(end)
            self.sleep(TICK_S)
        for end in self.backend.ended():
            self._note(end)

    def _outcome(self) -> Outcome:
        """How every stage ended; the first failure is the attempt's."""
        stages: dict[str, StageOutcome] = {}
        for stage in self.plan.stages:
            if stage.name in self.walk.failed:
                stages[stage.name] = StageOutcome(state="failed", failure=self.walk.failed[stage.name])
            elif stage.name in self.walk.blocked:
                stages[stage.name] = StageOutcome(state="blocked", blocked_by=self.walk.blocked[stage.name])
            else:
                stages[stage.name] = StageOutcome(state="finished")
        first = next(iter(self.walk.failed.values()), None)
        return Outcome(
            reason=first.reason if first else Reason.SUCCEEDED,
            failure=first,
            stages=stages,
            ended_at=self.clock(),
        )


def _stages_behind(plan: Plan) -> dict[str, int]:
    """For each stage the length of the longest chain of stages that wait for it."""
    behind = dict.fromkeys((stage.name for stage in plan.stages), 0)
    for stage in reversed(plan.stages):
        for needed in stage.needs.values():
            behind[needed] = max(behind[needed], behind[stage.name] + 1)
    return behind
