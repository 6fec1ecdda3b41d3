"""Walks a plan's stage graph: starts ready stages, retries by reason, blocks stages that depend on a failed one.

A `Backend` runs the stages. All state is in the store and the backend, so that a conductor can die at any moment
and another one continues.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from launcher.costs import budget
from launcher.costs.allowances import Allowances, Decision
from launcher.outcome import DISPOSITIONS, RETRY_BUDGET, Failure, Reason, Retry
from launcher.runs.silence import SilentStages
from launcher.runs.stage_holders import StageHolders
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.lease import revoke, stage_lease
from launcher.store.records import Outcome, PodTimes, StageOutcome, TryEnd
from launcher.store.runs import Attempt

#: Pause between two rounds of the walk.
TICK_S = 0.1
#: How often the cost is compared with the cap.
_BUDGET_INTERVAL_S = 10.0
#: Kinds of stages that may cost money; none starts if the estimate is over the cap.
_PAID_KINDS = ("train", "tune", "predict")


@dataclass(frozen=True)
class Ended:
    """The end of a stage's process or Job."""

    stage: str
    exit_code: int
    reason: Reason
    failure: Failure | None = None
    #: The times of its pods, if it had pods.
    pods: tuple[PodTimes, ...] = ()


class Backend(Protocol):
    """Runs stages as processes or Jobs."""

    @property
    def outlives_conductor(self) -> bool:
        """Whether stages continue without a conductor, for the next one to adopt."""
        ...

    def adopt(self, stage: Stage, number: int) -> bool:
        """Take over a try that an earlier conductor started; False if nothing is left of it.

        `ended` then returns its end, past or future.
        """
        ...

    def has_room(self, stage: Stage) -> bool:
        """Whether `stage` can start now, beside the running ones."""
        ...

    def start(self, stage: Stage, number: int) -> None: ...

    def running(self) -> set[str]: ...

    def held_s(self) -> dict[str, float]:
        """For how many seconds each running stage has held its machine."""
        ...

    def ended(self) -> list[Ended]:
        """The ends since the last call."""
        ...

    def started_at(self) -> dict[str, float]:
        """Unix time at which each running stage's process started; a stage that waits for a machine is left out."""
        ...

    def end_silent(self, stage: str, failure: Failure) -> None:
        """Kill a running stage that writes no heartbeats; `ended` then returns its end with `failure`."""
        ...

    def stop(self) -> None:
        """Ask all running stages to stop; `ended` returns their ends."""
        ...


@dataclass
class Walk:
    """The state of the walk, by stage name.

    `blocked` maps a stage to the failed one that it depends on; `spent` counts tries per retry budget.
    """

    failed: dict[str, Failure] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    tries: Counter[str] = field(default_factory=Counter)
    spent: Counter[tuple[str, Retry]] = field(default_factory=Counter)


class Conductor:
    """Carries one attempt from its current state to its outcome."""

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
        self._silence = SilentStages(plan, attempt, clock)
        self._holders = StageHolders(store, plan.run_id, clock)
        self._allowances = Allowances(plan, store, attempt)
        #: Stages that wait for dollars which running stages may not need.
        self._waiting_for_budget: set[str] = set()
        self._chain_lengths = _chain_lengths(plan)
        self._stop = False
        self._budget_checked_at = clock()

    def request_stop(self) -> None:
        """Stop without closing the attempt, so that a later conductor continues.

        Stages that cannot outlive this conductor save their progress and end.
        """
        self._stop = True

    def run(self) -> Outcome | None:
        """Walk to the end. Returns the outcome, which is not stored yet; None if stopped or cancelled."""
        self._restore()
        while True:
            for end in self.backend.ended():
                self._record(end)
            if self._stop and self.backend.outlives_conductor:
                return None
            if self._stop or self.attempt.outcome is not None:
                self._stop_all()
                return None
            self._check_budget()
            for name, failure in self._silence.find(self.backend.started_at).items():
                self.backend.end_silent(name, failure)
            self._block_dependents()
            self._start_ready()
            if not self.backend.running() and not self._open_stages():
                return self._outcome()
            self.sleep(max(TICK_S, self.store.poll_interval_s))

    def _restore(self) -> None:
        """Restore the walk from what earlier conductors of this attempt recorded."""
        for one in self.attempt.tries():
            self.walk.tries[one.stage] = max(self.walk.tries[one.stage], one.number)
            if one.end is None:
                if self.backend.adopt(self.plan.stage(one.stage), one.number):
                    continue
                # Conductor and stage were lost: not a failure of the stage, and no retry budget is spent.
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
        """Start every stage whose inputs exist, the one with the longest chain of dependents first."""
        running = self.backend.running()
        for stage in sorted(self._open_stages(), key=lambda stage: -self._chain_lengths[stage.name]):
            if stage.name in running or not all(
                self._is_finished(self.plan.stage(name)) for name in stage.needs.values()
            ):
                continue
            if self._holders.other(stage) is None and self.backend.has_room(stage) and self._may_spend(stage):
                self.walk.tries[stage.name] += 1
                number = self.walk.tries[stage.name]
                self.attempt.begin_try(stage.name, number, self.clock())
                self.backend.start(stage, number)

    def _may_spend(self, stage: Stage) -> bool:
        """Whether the budget lets the stage start now. Fails the stage if it never will."""
        if stage.kind not in _PAID_KINDS:
            return True
        if stage.name in self._waiting_for_budget:
            return False
        refusal = budget.would_exceed(self.plan, self.store, self.attempt)
        decision = refusal or self._allowances.grant(stage, self.backend.running())
        if isinstance(decision, Failure):
            self.walk.failed[stage.name] = decision
        elif decision is Decision.WAIT:
            print(f"{stage.name}: waiting for what running stages leave of the budget", flush=True)
            self._waiting_for_budget.add(stage.name)
        return decision is Decision.START

    def _check_budget(self) -> None:
        """At intervals: stop all stages if the run has cost more than its cap."""
        now = self.clock()
        if now < self._budget_checked_at + _BUDGET_INTERVAL_S:
            return
        self._budget_checked_at = now
        refusal = budget.over_budget(self.plan, self.store, self.attempt, self.backend.held_s())
        if refusal is not None:
            for stage in self._open_stages():
                self.walk.failed[stage.name] = refusal
            self._stop_all()

    def _record(self, end: Ended) -> None:
        """Record an end and decide whether the stage is retried."""
        reason, failure = end.reason, end.failure
        finished = self.store.exists(f"stages/{self.plan.stage(end.stage).key}")
        if reason is Reason.SUCCEEDED and not finished:
            reason = Reason.INTERNAL
            failure = Failure(
                reason, "the stage ended with exit code 0 and committed nothing", where=end.stage
            )
        if not finished and not any(pod.lost for pod in end.pods):
            # The process has ended and may not have released its lease; the next try need not wait for its expiry.
            revoke(self.store, stage_lease(self.plan.stage(end.stage).key), self.plan.run_id)
        if finished:
            # After its commit a stage has succeeded, however its process ended.
            reason, failure = Reason.SUCCEEDED, None
        retry = DISPOSITIONS[reason].retry
        final = False
        self._waiting_for_budget.clear()
        # A stage whose allowance was used up has not failed: it continues with what the others leave.
        asks_for_more = self._allowances.settle(self.plan.stage(end.stage)) and reason is Reason.OVER_BUDGET
        if not (finished or asks_for_more or self._stop) and self.attempt.outcome is None:
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

    def _block_dependents(self) -> None:
        for stage in self.plan.stages:
            for needed in stage.needs.values():
                failed = self.walk.blocked.get(needed, needed if needed in self.walk.failed else None)
                if (
                    failed is not None
                    and stage.name not in self.walk.blocked
                    and not self._is_finished(stage)
                ):
                    self.walk.blocked[stage.name] = failed

    def _stop_all(self) -> None:
        """Stop the running stages and wait until they have ended; the attempt stays open or closed."""
        self.backend.stop()
        while self.backend.running():
            for end in self.backend.ended():
                self._record(end)
            self.sleep(TICK_S)
        for end in self.backend.ended():
            self._record(end)

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


def _chain_lengths(plan: Plan) -> dict[str, int]:
    """For each stage the length of the longest chain of stages that depend on it."""
    lengths = dict.fromkeys((stage.name for stage in plan.stages), 0)
    for stage in reversed(plan.stages):
        for needed in stage.needs.values():
            lengths[needed] = max(lengths[needed], lengths[stage.name] + 1)
    return lengths
