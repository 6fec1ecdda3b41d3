"""Watches a run's conductor in the cluster from outside, and explains why it has no heartbeat."""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.outcome import Failure, Reason
from launcher.store.runs import Attempt
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.conductor_jobs import conductor_job, live_conductors
from launcher.targets.cluster.objects import (
    Object,
    condition,
    event_time,
    name_of,
    pod_has_ended,
    seconds_of,
    terminated,
)
from launcher.targets.cluster.pod_failure import failure_of
from launcher.targets.cluster.pod_obstacle import START_FAILURE_EVENTS, Obstacle, obstacle, obstacle_of_event

#: How often the conductor's Job is polled.
_POLL_INTERVAL_S = 5.0


class ConductorJobSupervision:
    """Polls the conductor's Job of one attempt and fails once it is gone."""

    def __init__(
        self,
        attempt: Attempt,
        cluster: Cluster,
        job: str,
        say: Callable[[str], None],
        *,
        start_timeout_s: float,
    ) -> None:
        self.attempt = attempt
        self.cluster = cluster
        self.job = job
        self.say = say
        self.start_timeout_s = start_timeout_s
        #: Keys of what `say` has reported.
        self._reported: set[str] = set()
        self._polled_at = 0.0

    def look(self) -> None:
        """Report why the pod does not start. Raises Failure if the Job is gone, has failed or cannot start."""
        if time.monotonic() < self._polled_at + _POLL_INTERVAL_S:
            return
        self._polled_at = time.monotonic()
        try:
            self._poll()
        except Failure as failure:
            if failure.reason is not Reason.NETWORK:
                raise
            # The run continues, and the store shows its progress.
            self._say_once("unreachable", f"warning: {failure.what}; progress is read from the store only")
        else:
            self._reported.discard("unreachable")

    def _poll(self) -> None:
        job = self.cluster.get("Job", self.job)
        if self.attempt.outcome is not None:
            return
        if job is None:
            others = live_conductors(self.cluster, self.attempt.run_id)
            failure = _taken_over(self.job, others[0]) if others else _deleted(self.job)
            raise failure.about(self.attempt.run_id, "")
        pods = _pods(self.cluster, self.job)
        if condition(job, "Failed"):
            raise _failed(job, pods, self.attempt.run_id)
        self._say_ends(pods)
        self._say_obstacle(job, pods)

    def _say_ends(self, pods: list[Object]) -> None:
        """Report why a conductor's pod ended: its Job starts another, but the cause may need a person."""
        for pod in pods:
            name = name_of(pod)
            if pod_has_ended(pod) and name not in self._reported:
                self._reported.add(name)
                if (terminated(pod) or {}).get("exitCode") == 0:
                    continue
                _, why = failure_of(None, [pod], memory_advice="give it more memory: --overlay")
                if why.reason is not Reason.TERMINATED:
                    self.say(f"the conductor's pod {name} has ended, another follows: {why.text()}")

    def _say_once(self, kind: str, text: str) -> None:
        if kind not in self._reported:
            self._reported.add(kind)
            self.say(text)

    def _say_obstacle(self, job: Object, pods: list[Object]) -> None:
        alive = [pod for pod in pods if not pod_has_ended(pod)]
        found = _obstacle(self.cluster, job, alive)
        if found is None:
            return
        # ErrImagePull and ImagePullBackOff alternate: each is reported once.
        self._say_once(
            found.text.partition(":")[0],
            f"the conductor's pod {_state(found)}: {found.note}",
        )
        waits = alive[0] if alive else job
        created_at = seconds_of(waits["metadata"].get("creationTimestamp")) or time.time()
        if found.cause != "node" and time.time() - created_at > self.start_timeout_s:
            raise Failure(
                Reason.CANNOT_START,
                f"the conductor's pod did not start within {self.start_timeout_s:.0f} s: {found.text}",
                where=self.job,
                next_step=f"correct that (kubectl describe job {self.job}), then submit again",
            )


def why_silent(attempt: Attempt, cluster: Cluster) -> Failure | None:
    """Why an open attempt's conductor has no heartbeat; None if its pod runs or is starting. Does not wait."""
    job = conductor_job(cluster, attempt)
    if job is None:
        return _deleted(f"run {attempt.run_id}, {cluster.where}")
    pods = _pods(cluster, name_of(job))
    if condition(job, "Failed"):
        return _failed(job, pods, attempt.run_id)
    found = _obstacle(cluster, job, [pod for pod in pods if not pod_has_ended(pod)])
    if found is None:
        return None
    return Failure(
        Reason.KILLED if found.cause == "node" else Reason.CANNOT_START,
        f"the conductor's pod {_state(found)}: {found.text}",
        next_step=found.next_step or f"kubectl describe pods -l batch.kubernetes.io/job-name={name_of(job)}",
    )


def end_abandoned(attempt: Attempt, cluster: Cluster) -> bool:
    """Delete a conductor's Job that has failed permanently, and with it its stage Jobs.

    False if there is none: the conductor lives, may be restarted, or its Job is gone.
    """
    job = conductor_job(cluster, attempt)
    if job is None or not condition(job, "Failed"):
        return False
    return cluster.delete("Job", name_of(job), uid=job["metadata"]["uid"])


def _state(found: Obstacle) -> str:
    return "makes no progress" if found.cause == "node" else "has not started"


def _obstacle(cluster: Cluster, job: Object, alive: list[Object]) -> Obstacle | None:
    """What keeps the oldest live pod from running; if the Job has no pod, why none was created."""
    if not alive:
        failed = [event for event in _events(cluster, job) if event.get("reason") in START_FAILURE_EVENTS]
        newest = max(failed, key=event_time, default=None)
        return obstacle_of_event(newest) if newest else None
    pod = alive[0]
    starting = pod.get("status", {}).get("phase") != "Running"
    return obstacle(pod, _events(cluster, pod) if starting else [], time.time())


def _events(cluster: Cluster, about: Object) -> list[Object]:
    return cluster.list("Event", fields=f"involvedObject.name={name_of(about)}")


def _pods(cluster: Cluster, job: str) -> list[Object]:
    return cluster.list("Pod", labels={"batch.kubernetes.io/job-name": job})


def _deleted(job: str) -> Failure:
    return Failure(
        Reason.KILLED,
        "the conductor's Job was deleted",
        where=job,
        next_step="submit again: finished stages are kept",
    )


def _taken_over(job: str, other: Object) -> Failure:
    return Failure(
        Reason.KILLED,
        f"{name_of(other)} has taken over the run with another attempt, site, placement or overlay",
        where=job,
        next_step="launcher status RUN; submitting again as before would end that conductor",
    )


def _failed(job: Object, pods: list[Object], run_id: str) -> Failure:
    name = name_of(job)
    _, why = failure_of(job, pods, memory_advice="give it more memory: --overlay")
    return Failure(
        why.reason,
        f"the conductor's Job has failed: {why.what}",
        where=name,
        next_step=f"kubectl logs job/{name}; launcher cancel {run_id}, then launcher retry {run_id}",
    )
