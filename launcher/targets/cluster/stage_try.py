"""One try of a stage as the cluster backend tracks it."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.outcome import Failure
from launcher.spec.plan import Stage
from launcher.store.records import MeasuredTry, PodTimes
from launcher.targets.cluster.objects import (
    JOB_NAME_LABEL,
    Object,
    main_state,
    name_of,
    pod_has_ended,
    seconds_of,
)
from launcher.targets.cluster.pod_times import pod_times


@dataclass
class StageTry:
    """A try, from before its Job is created to its end."""

    stage: Stage
    number: int
    job: str
    #: When the Job was created or found; None before.
    created_at: float | None = None
    #: Whether the Job has been in the view.
    seen: bool = False
    failed_at: float | None = None
    #: By uid, the last state seen of each pod; a deleted pod is no longer in the view.
    pods: dict[str, Object] = field(default_factory=dict)
    #: What an earlier conductor measured of the pods.
    earlier: tuple[PodTimes, ...] = ()
    deleted: bool = False
    #: The API server rejected the Job.
    rejected: Failure | None = None
    #: Why the try is being ended, if it wrote no heartbeats.
    silent: Failure | None = None
    #: The Job is not created before this time.
    not_before: float = 0.0
    #: Since when the pods have not been running, and the Events read last.
    stuck_since: float | None = None
    events: list[Object] = field(default_factory=list)
    events_at: float = 0.0

    def update(self, pods: dict[str, Object]) -> None:
        """Remember the state of this try's pods among `pods`."""
        for pod in pods.values():
            if pod["metadata"].get("labels", {}).get(JOB_NAME_LABEL) == self.job:
                self.pods[pod["metadata"]["uid"]] = pod

    def pods_in(self, view: dict[str, Object]) -> list[Object]:
        """The pods that still exist."""
        return [pod for pod in self.pods.values() if name_of(pod) in view]

    @property
    def pods_have_ended(self) -> bool:
        return bool(self.pods) and all(pod_has_ended(pod) for pod in self.pods.values())

    @property
    def is_running(self) -> bool:
        return any(pod.get("status", {}).get("phase") == "Running" for pod in self.pods.values())

    def started_at(self, view: dict[str, Object]) -> float | None:
        """When the last of the present pods started its program; None if one of them waits or has ended."""
        states = [main_state(pod, "running") for pod in self.pods_in(view)]
        started = [seconds_of((state or {}).get("startedAt")) for state in states]
        known = [at for at in started if at is not None]
        return max(known) if known and len(known) == len(started) else None

    def times(self, now: float) -> tuple[PodTimes, ...]:
        """Measured seconds of all pods; a pod that only an earlier conductor saw was lost."""
        seen = pod_times(list(self.pods.values()), now)
        names = {times.pod for times in seen}
        lost = (times.model_copy(update={"lost": True}) for times in self.earlier if times.pod not in names)
        return (*lost, *seen)

    def measured(self, now: float) -> MeasuredTry:
        """The measurements that the next conductor needs."""
        return MeasuredTry(number=self.number, pods=self.times(now))
