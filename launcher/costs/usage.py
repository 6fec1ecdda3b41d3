"""What the seconds of a stage's machines went to: work, overhead, waiting, losses, failures.

From the tries that the conductor recorded, and in a cluster from what it measured of their pods.
A second here is one of the whole stage: of a stage on several nodes, all of them held it at once.
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
    """Wall-clock seconds. Only `waiting` costs nothing: no machine was held."""

    #: The stage's own measure of the committed work, also if another run paid for it.
    productive: float = 0.0
    #: Held beside that by tries that succeeded: the program's start, images that were pulled already.
    overhead: float = 0.0
    #: From a pod's creation to its start: no room, images being pulled.
    waiting: float = 0.0
    #: Work that was taken away (a lost node, preemption, a cancel).
    lost: float = 0.0
    #: Tries that failed by themselves.
    failed: float = 0.0

    @property
    def wasted(self) -> float:
        return self.overhead + self.lost + self.failed

    @property
    def paid(self) -> float:
        return self.productive + self.wasted


def account(stage: Stage, tries: Iterable[Try], productive_s: float | None) -> Seconds:
    """The seconds of one stage over `tries` (those of other stages are passed over)."""
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
