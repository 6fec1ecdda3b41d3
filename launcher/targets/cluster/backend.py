"""The cluster backend: stages are Jobs, children of the conductor's Job.

All state is in the API and the store, so that a later conductor's backend continues from the same Jobs. Two watches
keep a view of the run's Jobs and pods; other requests create and delete Jobs, or read Events.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from launcher.manifests.labels import RUN_LABEL, STAGE_LABEL
from launcher.manifests.render import of_try
from launcher.outcome import Failure, Reason
from launcher.runs.conductor import Ended
from launcher.spec.plan import Plan, Stage
from launcher.store.records import MeasuredTry, Note
from launcher.targets.cluster.api_errors import is_quota_exceeded, is_unauthorized
from launcher.targets.cluster.client import Cluster, Conflict
from launcher.targets.cluster.objects import (
    JOB_NAME_LABEL,
    Object,
    condition,
    event_time,
    job_has_ended,
    name_of,
    one_line,
    pod_has_ended,
    terminated,
)
from launcher.targets.cluster.pod_failure import failed_pod, failure_of
from launcher.targets.cluster.pod_obstacle import Obstacle, obstacle, obstacle_of_event
from launcher.targets.cluster.stage_try import StageTry

#: A Job that was created and is missing from the view for this long is gone.
_UNSEEN_S = 20.0
#: How long after its Job has failed a pod's last state may still arrive.
_SETTLE_S = 3.0
#: How often the Events of a pod that does not start are read.
_EVENTS_INTERVAL_S = 10.0
#: Pause before a stage whose pod its node did not run (a device plugin restarts, a volume hangs) is tried again;
#: it grows with each such try, so that the tries outlast the cause.
_NEVER_RAN_PAUSE_S = 10.0
#: Kueue: the queue that admits a Job.
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


class ClusterBackend:
    """Runs stages as Jobs made from the manifests of the run's ConfigMap; see `launcher.runs.conductor.Backend`."""

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        jobs: dict[str, Object],
        owner: Object,
        *,
        start_timeout_s: float,
        keep_log: Callable[[str, int, str], None],
        earlier: dict[str, MeasuredTry] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`jobs` are the stages' manifests; `owner` is the ownerReference that makes them children.

        `keep_log(stage, try, pod)` stores the log of a try that may not have stored its own. `earlier` is what
        `measured` returned in a conductor that was lost.
        """
        self.plan = plan
        self.cluster = cluster
        self.jobs = jobs
        self.owner = owner
        self.start_timeout_s = start_timeout_s
        self.keep_log = keep_log
        self._earlier = dict(earlier or {})
        self.clock = clock
        self._running: dict[str, StageTry] = {}
        #: By stage, how many tries in a row ended before their program started.
        self._never_ran: Counter[str] = Counter()
        self._stopping = False
        run = {RUN_LABEL: plan.run_id}
        self._jobs_view = cluster.watch("Job", labels=run)
        self._pods_view = cluster.watch("Pod", labels=run)
        #: By stage, why it makes no progress.
        self.notes: dict[str, Note] = {}

    def close(self) -> None:
        """End the watches."""
        self._jobs_view.stop()
        self._pods_view.stop()

    def wait(self, seconds: float) -> None:
        """Wait until the run's Jobs change, or for `seconds`."""
        self._jobs_view.changed.wait(seconds)
        self._jobs_view.changed.clear()

    # -- Backend --------------------------------------------------------------------------
    @property
    def outlives_conductor(self) -> bool:
        return True

    def has_room(self, stage: Stage) -> bool:
        return True  # the scheduler, or a queue, decides

    def adopt(self, stage: Stage, number: int) -> bool:
        name = name_of(of_try(self.jobs[stage.name], number))
        if self.cluster.get("Job", name) is None:
            return False
        known = self._earlier.pop(stage.name, None)
        pods = known.pods if known is not None and known.number == number else ()
        self._running[stage.name] = StageTry(stage, number, name, created_at=self.clock(), earlier=pods)
        return True

    def start(self, stage: Stage, number: int) -> None:
        name = name_of(of_try(self.jobs[stage.name], number))
        pause_s = _NEVER_RAN_PAUSE_S * self._never_ran[stage.name]
        one = StageTry(stage, number, name, not_before=self.clock() + pause_s)
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
            name: sum(times.running_s for times in one.times(now)) / max(1, one.stage.resources.nodes)
            for name, one in self._running.items()
        }

    def measured(self) -> dict[str, MeasuredTry]:
        """Seconds of the pods of every running try, deleted pods included, for the next conductor."""
        now = self.clock()
        return {**self._earlier, **{name: one.measured(now) for name, one in self._running.items()}}

    def ended(self) -> list[Ended]:
        """The tries that have ended since the last call. Raises Failure if the views are out of date."""
        for view in (self._jobs_view, self._pods_view):
            view.check()
        jobs, pods = self._jobs_view.objects(), self._pods_view.objects()
        ends = []
        for name, one in list(self._running.items()):
            one.update(pods)
            end = self._check(one, jobs.get(one.job))
            if end is not None:
                del self._running[name]
                self.notes.pop(name, None)
                ends.append(end)
        return ends

    def started_at(self) -> dict[str, float]:
        view = self._pods_view.objects()
        found = {name: one.started_at(view) for name, one in self._running.items() if one.silent is None}
        return {name: at for name, at in found.items() if at is not None}

    def end_silent(self, stage: str, failure: Failure) -> None:
        one = self._running[stage]
        one.silent = failure
        self._delete(one)

    def stop(self) -> None:
        self._stopping = True
        for one in self._running.values():
            if one.created_at is not None:
                self._delete(one)

    # -- one try --------------------------------------------------------------------------
    def _check(self, one: StageTry, job: Object | None) -> Ended | None:
        """The end of a try, if it has ended; otherwise create its Job or note why it waits."""
        now = self.clock()
        if one.rejected is not None:
            return self._end(one, one.rejected.exit_code, one.rejected)
        if one.created_at is None:
            if self._stopping:
                return self._end(one, 143, Failure(Reason.TERMINATED, "stopped before it was started"))
            if now >= one.not_before:
                self._create_if_alone(one)
            return None
        if job is None:
            if not one.seen and now - one.created_at < _UNSEEN_S:
                return None
            return self._check_deleted(one)
        one.seen = True
        if condition(job, "Complete"):
            return self._end(one, 0, None)
        if condition(job, "Failed"):
            one.failed_at = one.failed_at or now
            # The view may show the failed Job before its pods' last state.
            if not one.pods_have_ended and now - one.failed_at < _SETTLE_S:
                return None
            return self._end(one, *self._failure(one, job))
        if (job.get("spec") or {}).get("suspend"):
            self._note_suspended(one, job)
            return None
        return self._check_start(one, now)

    def _failure(self, one: StageTry, job: Object | None) -> tuple[int, Failure]:
        return failure_of(job, list(one.pods.values()), memory_advice=self._memory_advice(one.stage))

    def _note_suspended(self, one: StageTry, job: Object) -> None:
        """Waiting for a queue's admission has no time limit; the start timeout begins after it."""
        one.stuck_since = None
        queue = job["metadata"].get("labels", {}).get(_QUEUE_LABEL)
        what = f"its Job waits for queue {queue}" if queue else "its Job is suspended"
        self.notes[one.stage.name] = Note(what, f"kubectl describe job {one.job}")

    def _check_deleted(self, one: StageTry) -> Ended | None:
        """The Job was deleted; the try ends once its pods have gone too."""
        alive = [pod for pod in one.pods_in(self._pods_view.objects()) if not pod_has_ended(pod)]
        if alive:
            self._note_lost_node(one.stage, alive)
            return None
        if one.silent is not None:
            return self._end(one, one.silent.exit_code, one.silent)
        if one.rejected is None and self._stopping:
            return self._end(one, 143, Failure(Reason.TERMINATED, "stopped on request; progress is saved"))
        return self._end(one, *self._failure(one, None))

    def _note_lost_node(self, stage: Stage, pods: list[Object]) -> bool:
        """Note it if a pod does not end because its node does not answer; whether that is so."""
        for pod in pods:
            found = obstacle(pod, [], self.clock())
            if found is not None and found.cause == "node":
                self.notes[stage.name] = found.note
                return True
        return False

    def _check_start(self, one: StageTry, now: float) -> Ended | None:
        """Note why pods do not start; end the try if waiting cannot help or has taken too long."""
        current = one.pods_in(self._pods_view.objects())
        waiting = [pod for pod in current if obstacle(pod, one.events, now) or _is_pending(pod)]
        if current and not waiting:
            one.stuck_since = None
            self.notes.pop(one.stage.name, None)
            return None
        one.stuck_since = one.stuck_since or now
        found = self._obstacles(one, waiting, now)
        causes = {each.cause for each in found}
        if found:
            self.notes[one.stage.name] = found[0].note
        if "no-room" in causes and self._others_run(one):
            # Room that the run itself uses becomes free again.
            one.stuck_since = now
        if "node" in causes or any(map(_is_deleted, waiting)):
            return None
        stuck_s = now - one.stuck_since
        if stuck_s > self.start_timeout_s or ("permanent" in causes and stuck_s > _EVENTS_INTERVAL_S):
            why = found[0].text if found else "no event explains it"
            return self._give_up(one, f"its pod did not start within {stuck_s:.0f} s: {why}")
        return None

    def _obstacles(self, one: StageTry, waiting: list[Object], now: float) -> list[Obstacle]:
        """What keeps the waiting pods from running; with no pod at all, what keeps the Job from creating one."""
        if now - max(one.events_at, one.stuck_since or now) >= _EVENTS_INTERVAL_S:
            one.events_at = now
            about = name_of(waiting[0]) if waiting else one.job
            one.events = self.cluster.list("Event", fields=f"involvedObject.name={about}")
        if not waiting and one.events:
            return [obstacle_of_event(max(one.events, key=event_time))]
        return [found for pod in waiting if (found := obstacle(pod, one.events, now))]

    def _others_run(self, one: StageTry) -> bool:
        """Whether a pod of another stage of this run is running."""
        return any(other.is_running for other in self._running.values() if other is not one)

    def _give_up(self, one: StageTry, what: str) -> Ended:
        self._delete(one)
        failure = Failure(Reason.CANNOT_START, what, next_step="correct that, then launcher retry RUN")
        return self._end(one, failure.exit_code, failure)

    def _create_if_alone(self, one: StageTry) -> None:
        """Create the Job once the stage has no other live Job or pod: two must never share a checkpoint."""
        labels = {RUN_LABEL: self.plan.run_id, STAGE_LABEL: one.stage.name}
        for job in self.cluster.list("Job", labels=labels):
            if name_of(job) != one.job and not job_has_ended(job) and not _is_deleted(job):
                self.cluster.delete("Job", name_of(job))
        busy = [
            pod
            for pod in self.cluster.list("Pod", labels=labels)
            if pod["metadata"].get("labels", {}).get(JOB_NAME_LABEL) != one.job and not pod_has_ended(pod)
        ]
        if busy:
            if not self._note_lost_node(one.stage, busy):
                self.notes[one.stage.name] = Note(f"waiting for {name_of(busy[0])} to end")
            return
        manifest = of_try(self.jobs[one.stage.name], one.number)
        manifest = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [self.owner]}}
        self.notes.pop(one.stage.name, None)
        try:
            self.cluster.create(manifest)
        except Conflict:
            pass  # created by a conductor that was lost before it recorded that
        except Failure as failure:
            if failure.reason is Reason.NETWORK or is_unauthorized(failure):
                raise  # not about the manifest: the conductor waits for the API
            if is_quota_exceeded(failure) and self._others_run(one):
                # Quota that the run itself uses becomes free again.
                self.notes[one.stage.name] = Note(one_line("; ".join((failure.what, *failure.problems))))
                one.not_before = self.clock() + _EVENTS_INTERVAL_S
                return
            one.rejected = failure
            return
        one.created_at = self.clock()

    def _delete(self, one: StageTry) -> None:
        if not one.deleted:
            one.deleted = True
            self.cluster.delete("Job", one.job)

    def _end(self, one: StageTry, code: int, failure: Failure | None) -> Ended:
        reason = failure.reason if failure else Reason.SUCCEEDED
        started = [pod for pod in one.pods.values() if terminated(pod)]
        if failure is not None and started:
            pod = failed_pod(started) or started[-1]
            self.keep_log(one.stage.name, one.number, name_of(pod))
        pods = one.times(self.clock())
        never_ran = reason is Reason.KILLED and bool(pods) and not any(times.running_s for times in pods)
        self._never_ran[one.stage.name] = self._never_ran[one.stage.name] + 1 if never_ran else 0
        return Ended(one.stage.name, code, reason, failure, pods=pods)

    def _memory_advice(self, stage: Stage) -> str:
        """How to give a stage more memory. That of other kinds is not a setting: an overlay changes it."""
        for contender in self.plan.experiment.get("contenders", []):
            if (
                contender.get("name") == stage.contender
                and contender.get("hardware")
                and stage.kind in ("train", "predict")
            ):
                more = 2 * stage.resources.memory_gib
                return f"launcher retry RUN --set contenders[{stage.contender}].hardware.memory_gib={more}"
        return "launcher retry RUN --overlay FILE, with more memory for the container 'stage'"


def _is_deleted(thing: Object) -> bool:
    return bool(thing["metadata"].get("deletionTimestamp"))


def _is_pending(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")
