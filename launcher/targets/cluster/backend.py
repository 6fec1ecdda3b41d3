"""The cluster backend: stages are Jobs, children of the conductor's Job.

State is only in the API and the store: whoever builds this object anew sees the same Jobs. Two watches
(Jobs and pods of the run) keep a picture of the run; requests are made only to create and to delete.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from launcher.manifests.labels import RUN_LABEL, STAGE_LABEL
from launcher.manifests.render import of_try
from launcher.outcome import Failure, Reason
from launcher.runs.conductor import Ended
from launcher.spec.plan import Plan, Stage
from launcher.store.records import MeasuredTry, Note, PodTimes
from launcher.targets.cluster import pod_status as of
from launcher.targets.cluster.api_errors import is_quota_exceeded, is_unauthorized
from launcher.targets.cluster.client import Cluster, Conflict

Object = dict[str, Any]
#: A Job that was created and is not in the picture for so long is gone.
_UNSEEN_S = 20.0
#: How long after its Job failed a pod's last state may be on its way.
_SETTLE_S = 3.0
#: Between two looks at the Events of a pod that does not start.
_EVENTS_INTERVAL_S = 10.0
#: A pod that its node did not run (a device plugin starts again, a volume hangs) is tried again after so long, after
#: twice as long the next time, and so on: the tries should outlast what is in the way.
_NEVER_RAN_PAUSE_S = 10.0
#: Kueue's: the queue that admits a Job.
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"


@dataclass
class _Running:
    """One try of a stage, from before its Job is created to its end."""

    stage: Stage
    number: int
    job: str
    #: Not None once the Job was created (or found).
    created_at: float | None = None
    seen: bool = False
    failed_at: float | None = None
    #: The last state seen of each of its pods by uid: a deleted pod is gone from the picture.
    pods: dict[str, Object] = field(default_factory=dict)
    #: What an earlier conductor measured of its pods.
    earlier: tuple[PodTimes, ...] = ()
    deleted: bool = False
    refusal: Failure | None = None
    #: Its Job is not created before.
    not_before: float = 0.0
    #: When its pods were first seen not to run, and the Events looked at then.
    stuck_since: float | None = None
    events: list[Object] = field(default_factory=list)
    events_at: float = 0.0


class ClusterBackend:
    """Stages as Jobs created from the manifests of the run's ConfigMap."""

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        jobs: dict[str, Object],
        owner: Object,
        *,
        start_timeout_s: float,
        keep_log: Callable[[str, int, str], None],
        earlier: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`jobs` are the stages' manifests; `owner` is the ownerReference that makes them children.

        `keep_log(stage, try, pod)` stores the log of a try that may not have stored its own. `earlier` is
        what `measured` said in a conductor that was lost.
        """
        self.plan = plan
        self.cluster = cluster
        self.jobs = jobs
        self.owner = owner
        self.start_timeout_s = start_timeout_s
        self.keep_log = keep_log
        self._earlier = dict(earlier or {})
        self.clock = clock
        self._running: dict[str, _Running] = {}
        #: By stage, how many tries in a row ended before their program began.
        self._never_ran: Counter[str] = Counter()
        self._stopping = False
        run = {RUN_LABEL: plan.run_id}
        self._jobs_seen = cluster.watch("Job", labels=run)
        self._pods_seen = cluster.watch("Pod", labels=run)
        self.notes: dict[str, Note] = {}

    def close(self) -> None:
        """End the watches."""
        self._jobs_seen.stop()
        self._pods_seen.stop()

    def wait(self, seconds: float) -> None:
        """Until something changes in the run's Jobs, or for `seconds`."""
        self._jobs_seen.changed.wait(seconds)
        self._jobs_seen.changed.clear()

    # -- Backend --------------------------------------------------------------------------
    @property
    def outlives_conductor(self) -> bool:
        return True

    def has_room(self, stage: Stage) -> bool:
        return True  # the scheduler, or a queue, decides

    def adopt(self, stage: Stage, number: int) -> bool:
        name = of_try(self.jobs[stage.name], number)["metadata"]["name"]
        if self.cluster.get("Job", name) is None:
            return False
        known = self._earlier.pop(stage.name, None)
        pods = known.pods if known is not None and known.number == number else ()
        self._running[stage.name] = _Running(stage, number, name, created_at=self.clock(), earlier=pods)
        return True

    def start(self, stage: Stage, number: int) -> None:
        name = of_try(self.jobs[stage.name], number)["metadata"]["name"]
        pause_s = _NEVER_RAN_PAUSE_S * self._never_ran[stage.name]
        one = _Running(stage, number, name, not_before=self.clock() + pause_s)
        self._running[stage.name] = one
        if pause_s:
            self.notes[stage.name] = Note(f"its node did not run it; another try in {pause_s:.0f} s")
        else:
            self._create_if_alone(one)

    def running(self) -> set[str]:
        return set(self._running)

    def held_s(self) -> dict[str, float]:
        now = self.clock()
        return {
            name: sum(times.running_s for times in _times(one, now)) / max(1, one.stage.resources.nodes)
            for name, one in self._running.items()
        }

    def measured(self) -> dict[str, MeasuredTry]:
        """What the next conductor could not know: seconds of the pods of every try that runs, gone ones included."""
        now = self.clock()
        current = {
            name: MeasuredTry(number=one.number, pods=_times(one, now)) for name, one in self._running.items()
        }
        return {**self._earlier, **current}

    def ended(self) -> list[Ended]:
        """Look at every running try; the ends since the last call. Raises Failure where nothing is seen any more."""
        for watched in (self._jobs_seen, self._pods_seen):
            watched.check()
        jobs, pods = self._jobs_seen.objects(), self._pods_seen.objects()
        ends = []
        for name, one in list(self._running.items()):
            for pod in pods.values():
                if pod["metadata"].get("labels", {}).get(_JOB_NAME_LABEL) == one.job:
                    one.pods[pod["metadata"]["uid"]] = pod
            end = self._look(one, jobs.get(one.job))
            if end is not None:
                del self._running[name]
                self.notes.pop(name, None)
                ends.append(end)
        return ends

    def stop(self) -> None:
        self._stopping = True
        for one in self._running.values():
            if one.created_at is not None:
                self._delete(one)

    # -- one try --------------------------------------------------------------------------
    def _look(self, one: _Running, job: Object | None) -> Ended | None:
        now = self.clock()
        if one.refusal is not None:
            return self._end(one, one.refusal.exit_code, one.refusal)
        if one.created_at is None:
            if self._stopping:
                return self._end(one, 143, Failure(Reason.TERMINATED, "it was not started any more"))
            if now >= one.not_before:
                self._create_if_alone(one)
            return None
        if job is None:
            if not one.seen and now - one.created_at < _UNSEEN_S:
                return None
            return self._gone(one)
        one.seen = True
        if of.condition(job, "Complete"):
            return self._end(one, 0, None)
        if of.condition(job, "Failed"):
            one.failed_at = one.failed_at or now
            # The Job may say so before the picture has its pod's last state.
            if not self._pods_told(one) and now - one.failed_at < _SETTLE_S:
                return None
            return self._end(
                one,
                *of.failure_of(job, list(one.pods.values()), memory_advice=self._memory_advice(one.stage)),
            )
        if (job.get("spec") or {}).get("suspend"):
            self._note_suspended(one, job)
            return None
        return self._look_at_start(one, now)

    def _note_suspended(self, one: _Running, job: Object) -> None:
        """It waits for the queue's admission, at first or again, as long as that takes: it counts from there."""
        one.stuck_since = None
        queue = job["metadata"].get("labels", {}).get(_QUEUE_LABEL)
        waits = f"its Job waits for queue {queue}" if queue else "somebody has suspended its Job"
        self.notes[one.stage.name] = Note(waits, f"kubectl describe job {one.job}")

    def _gone(self, one: _Running) -> Ended | None:
        """The Job was deleted, by us or somebody: its end comes when its pods have gone as well."""
        names, now = self._pods_seen.objects(), self.clock()
        alive = [
            pod for pod in one.pods.values() if pod["metadata"]["name"] in names and not of.pod_has_ended(pod)
        ]
        if alive:
            self._note_lost_node(one.stage, alive, now)
            return None
        if one.refusal is None and self._stopping:
            return self._end(one, 143, Failure(Reason.TERMINATED, "stopped on request; progress is saved"))
        code, failure = of.failure_of(
            None, list(one.pods.values()), memory_advice=self._memory_advice(one.stage)
        )
        return self._end(one, code, failure)

    def _note_lost_node(self, stage: Stage, pods: list[Object], now: float) -> bool:
        """Say of pods that are waited for whether their node is why they do not go; whether that is so."""
        found = [obstacle for pod in pods if (obstacle := of.obstacle(pod, [], now)) and obstacle.of_node]
        if found:
            self.notes[stage.name] = found[0].note
        return bool(found)

    def _look_at_start(self, one: _Running, now: float) -> Ended | None:
        """Note why its pod does not start; give it up where that is hopeless or has lasted too long."""
        current = [pod for pod in one.pods.values() if pod["metadata"]["name"] in self._pods_seen.objects()]
        waiting = [pod for pod in current if of.obstacle(pod, one.events, now) or _not_started(pod)]
        if current and not waiting:
            one.stuck_since = None
            self.notes.pop(one.stage.name, None)
            return None
        one.stuck_since = one.stuck_since or now
        if now - max(one.events_at, one.stuck_since) >= _EVENTS_INTERVAL_S:
            one.events_at = now
            one.events = self._events(one, waiting)
        found = [obstacle for pod in waiting if (obstacle := of.obstacle(pod, one.events, now))]
        if not waiting and one.events:  # no pod at all: the Job controller says why
            newest = max(one.events, key=of.event_time)
            found = [of.Obstacle(of.first_line(str(newest.get("message", ""))))]
        if found:
            self.notes[one.stage.name] = found[0].note
        if any(map(_is_about_room, found)) and self._others_run(one):
            # Room that this run itself takes will come back.
            one.stuck_since = now
        if any(obstacle.of_node for obstacle in found) or any(map(_is_leaving, waiting)):
            return None
        hopeless = any(obstacle.hopeless for obstacle in found) and now - one.stuck_since > _EVENTS_INTERVAL_S
        if hopeless or now - one.stuck_since > self.start_timeout_s:
            why = found[0].text if found else "no event says why"
            return self._give_up(one, f"its pod did not start within {now - one.stuck_since:.0f} s: {why}")
        return None

    def _others_run(self, one: _Running) -> bool:
        """Whether a pod of another stage of this run is running."""
        return any(
            pod.get("status", {}).get("phase") == "Running"
            for other in self._running.values()
            if other is not one
            for pod in other.pods.values()
        )

    def _give_up(self, one: _Running, what: str) -> Ended:
        self._delete(one)
        failure = Failure(
            Reason.CANNOT_START,
            what,
            # Nothing of it is left to be described.
            next_step="correct that, then launcher retry RUN",
        )
        return self._end(one, failure.exit_code, failure)

    def _create_if_alone(self, one: _Running) -> None:
        """Create the Job once no other Job of this run and stage is alive: never two on one checkpoint."""
        labels = {RUN_LABEL: self.plan.run_id, STAGE_LABEL: one.stage.name}
        others = [
            job for job in self.cluster.list("Job", labels=labels) if job["metadata"]["name"] != one.job
        ]
        for job in others:
            if not of.job_has_ended(job) and not job["metadata"].get("deletionTimestamp"):
                self.cluster.delete("Job", job["metadata"]["name"])
        busy = [
            pod
            for pod in self.cluster.list("Pod", labels=labels)
            if pod["metadata"].get("labels", {}).get(_JOB_NAME_LABEL) != one.job and not of.pod_has_ended(pod)
        ]
        if busy:
            if not self._note_lost_node(one.stage, busy, self.clock()):
                self.notes[one.stage.name] = Note(f"waiting for {busy[0]['metadata']['name']} to end")
            return
        manifest = of_try(self.jobs[one.stage.name], one.number)
        manifest = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [self.owner]}}
        self.notes.pop(one.stage.name, None)
        try:
            self.cluster.create(manifest)
        except Conflict:
            pass  # made by a conductor that was lost before it knew
        except Failure as failure:
            if failure.reason is Reason.NETWORK or is_unauthorized(failure):
                raise  # the manifest was not refused: the conductor waits for the API, and begins anew
            if is_quota_exceeded(failure) and self._others_run(one):
                # What the run itself takes of it comes back.
                self.notes[one.stage.name] = Note(of.first_line("; ".join((failure.what, *failure.problems))))
                one.not_before = self.clock() + _EVENTS_INTERVAL_S
                return
            one.refusal = failure
            return
        one.created_at = self.clock()

    def _pods_told(self, one: _Running) -> bool:
        return bool(one.pods) and all(of.pod_has_ended(pod) for pod in one.pods.values())

    def _delete(self, one: _Running) -> None:
        if not one.deleted:
            one.deleted = True
            self.cluster.delete("Job", one.job)

    def _events(self, one: _Running, waiting: list[Object]) -> list[Object]:
        about = waiting[0]["metadata"]["name"] if waiting else one.job
        return self.cluster.list("Event", fields=f"involvedObject.name={about}")

    def _end(self, one: _Running, code: int, failure: Failure | None) -> Ended:
        reason = failure.reason if failure else Reason.SUCCEEDED
        started = [pod for pod in one.pods.values() if of.terminated(pod)]
        if failure is not None and started:
            told = of.failed_pod(started) or started[-1]
            self.keep_log(one.stage.name, one.number, told["metadata"]["name"])
        pods = _times(one, self.clock())
        never_ran = reason is Reason.KILLED and bool(pods) and not any(times.running_s for times in pods)
        self._never_ran[one.stage.name] = self._never_ran[one.stage.name] + 1 if never_ran else 0
        return Ended(one.stage.name, code, reason, failure, pods=pods)

    def _memory_advice(self, stage: Stage) -> str:
        """What gives a stage more memory. A rehearsal's memory is part of what is asked: for it the overlay."""
        for contender in self.plan.experiment.get("contenders", []):
            if (
                contender.get("name") == stage.contender
                and contender.get("hardware")
                and stage.kind in ("train", "predict")
            ):
                more = 2 * stage.resources.memory_gib
                return f"launcher retry RUN --set contenders[{stage.contender}].hardware.memory_gib={more}"
        return "launcher retry RUN --overlay FILE, with more memory for the container 'stage'"


def live_conductors(cluster: Cluster, run_id: str) -> list[Object]:
    """The run's conductor Jobs that have not ended."""
    labels = {RUN_LABEL: run_id, "app.kubernetes.io/component": "conductor"}
    return [job for job in cluster.list("Job", labels=labels) if not of.job_has_ended(job)]


def _times(one: _Running, now: float) -> tuple[PodTimes, ...]:
    """Measured seconds of all its pods. One that only an earlier conductor has seen was taken away."""
    seen = of.times(list(one.pods.values()), now)
    names = {times.pod for times in seen}
    lost = (times.model_copy(update={"lost": True}) for times in one.earlier if times.pod not in names)
    return (*lost, *seen)


def _is_about_room(obstacle: of.Obstacle) -> bool:
    """Whether it starts once other pods have ended."""
    return obstacle.text.startswith("Unschedulable") or "exceeded quota" in obstacle.text


def _is_leaving(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _not_started(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")
