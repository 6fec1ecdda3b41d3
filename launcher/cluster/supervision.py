"""An eye on a run's conductor in the cluster, from outside."""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.cluster import pods as of
from launcher.cluster.client import Cluster
from launcher.outcome import Failure, Reason
from launcher.runs import Attempt

#: How often somebody who waits for a run looks at its conductor's Job.
_LOOK_INTERVAL_S = 5.0


class Supervision:
    """Whoever waits for an attempt looks at its conductor's Job: nobody shall wait for one that is gone."""

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
        self._told: set[str] = set()
        self._looked_at = 0.0

    def look(self) -> None:
        """Say why the conductor's pod does not start; raise Failure(KILLED) where its Job is gone or has given up."""
        if time.monotonic() < self._looked_at + _LOOK_INTERVAL_S:
            return
        self._looked_at = time.monotonic()
        job = self.cluster.get("Job", self.job)
        if self.attempt.outcome is not None:
            return
        if job is None:
            raise Failure(
                Reason.KILLED,
                "the conductor's Job was deleted",
                where=self.job,
                next_step="submit again: finished stages are kept",
            )
        pods = self.cluster.list("Pod", labels={"batch.kubernetes.io/job-name": self.job})
        if of.condition(job, "Failed"):
            _, why = of.failure_of(job, pods, memory_advice="give it more memory: --overlay")
            raise Failure(
                why.reason,
                f"the conductor's Job has failed: {why.what}",
                where=self.job,
                next_step=f"kubectl logs job/{self.job}; launcher cancel {self.attempt.run_id}, then launcher retry",
            )
        self._say_ends(pods)
        self._say_obstacle(pods)

    def _say_ends(self, pods: list[of.Object]) -> None:
        """A conductor that ended is started again by its Job; its reason may be one that only people can cure."""
        for pod in pods:
            name = pod["metadata"]["name"]
            if of.pod_has_ended(pod) and name not in self._told:
                self._told.add(name)
                if (of.terminated(pod) or {}).get("exitCode") == 0:
                    continue
                _, why = of.failure_of(None, [pod], memory_advice="give it more memory: --overlay")
                if why.reason is not Reason.TERMINATED:
                    self.say(f"the conductor's pod {name} has ended, another follows: {why.text()}")

    def _say_obstacle(self, pods: list[of.Object]) -> None:
        alive = [pod for pod in pods if not of.pod_has_ended(pod)]
        if not alive or all(pod.get("status", {}).get("phase") == "Running" for pod in alive):
            return
        events = self.cluster.list("Event", fields=f"involvedObject.name={alive[0]['metadata']['name']}")
        found = of.obstacle(alive[0], events, time.time())
        if found is None:
            return
        # ErrImagePull and ImagePullBackOff take turns: each is said once.
        kind = found[0].partition(":")[0]
        if kind not in self._told:
            self._told.add(kind)
            self.say(f"the conductor's pod does not start yet: {found[0]}")
        created_at = of.seconds_of(alive[0]["metadata"].get("creationTimestamp")) or time.time()
        if time.time() - created_at > self.start_timeout_s:
            raise Failure(
                Reason.CANNOT_START,
                f"the conductor's pod did not start within {self.start_timeout_s:.0f} s: {found[0]}",
                where=self.job,
                next_step=f"correct that (kubectl describe job {self.job}), then submit again",
            )
