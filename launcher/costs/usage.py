"""How a stage's machine seconds were used: work, overhead, waiting, losses, failures.

Computed from the recorded tries and, in a cluster, from the measured times of their pods. One second of a stage on
several nodes is a second of all its nodes together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from launcher.outcome import Reason
from launcher.spec.plan import Stage
from launcher.store.runs import Try

_TAKEN_AWAY = (Reason.KILLED, Reason.TERMINATED, Reason.CANCELLED)


@dataclass(frozen=True)
class Seconds:
    """Wall-clock seconds. Only `waiting` costs nothing, because no machine is held."""

    #: The stage's own measure of the committed work, also if another run paid for it.
    productive: float = 0.0
    #: Further seconds of successful tries, for example the start of the program.
    overhead: float = 0.0
    #: From the creation of a pod to its start: scheduling, image pulls.
    waiting: float = 0.0
    #: Lost to a lost node, preemption or cancel.
    lost: float = 0.0
    #: Tries that failed.
    failed: float = 0.0

    @property
    def wasted(self) -> float:
        return self.overhead + self.lost + self.failed

    @property
    def paid(self) -> float:
        return self.productive + self.wasted


def account(stage: Stage, tries: Iterable[Try], productive_s: float | None) -> Seconds:
    """The seconds of one stage over `tries` (tries of other stages are ignored)."""
    overhead = waiting = lost = failed = 0.0
    for one in tries:
        if one.stage != stage.name or one.end is None:
            continue
        succeeded = one.reason is Reason.SUCCEEDED
        pods = one.end.pods
        if pods:
            # Pods of several nodes run side by side.
            share = 1 / max(1, stage.resources.nodes)
            waiting += share * sum(pod.waiting_s for pod in pods)
            lost += share * sum(pod.running_s for pod in pods if pod.lost)
            held = share * sum(pod.running_s for pod in pods if not pod.lost)
        else:
            held = 0.0 if succeeded else max(0.0, one.end.ended_at - one.started_at)
        if succeeded:
            overhead += max(0.0, held - (productive_s or 0.0)) if pods else 0.0
        elif one.reason in _TAKEN_AWAY:
            lost += held
        else:
            failed += held
    return Seconds(productive_s or 0.0, overhead, waiting, lost, failed)
