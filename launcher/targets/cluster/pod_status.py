"""What pods say: how a Job ended and why, why a pod does not start, how long it took.

Pure: reads the API's objects (camelCase dicts) and knows no client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from launcher.outcome import DISPOSITIONS, Failure, Reason, Retry, from_exit_code
from launcher.store.records import Note, PodTimes
from launcher.system.text import printable

Object = dict[str, Any]

#: What a container waits for that no waiting cures. ImagePullBackOff may: a registry can be down.
_HOPELESS = ("CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError")
#: So long after the end of its grace period a pod that is still there is on a node that does not answer.
_OVERDUE_S = 30.0
#: The containers that are the program: what an overlay puts beside them ends for reasons of its own.
_MAIN_CONTAINERS = ("stage", "conductor")
#: Of a Job with several pods, the number of each.
_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
#: Reasons of Events that tell why a pod does not start.
START_FAILURE_EVENTS = (
    "FailedScheduling",
    "Failed",
    "FailedMount",
    "FailedAttachVolume",
    "FailedCreatePodSandBox",
    "ErrImagePull",
    "FailedCreate",
)


@dataclass(frozen=True)
class Obstacle:
    """What keeps a pod from running, in words; `next_step` where a person can do something particular."""

    text: str
    next_step: str = ""
    #: No waiting cures it.
    hopeless: bool = False
    #: Its node does not answer: it may run there, so nothing is started in its place.
    of_node: bool = False

    @property
    def note(self) -> Note:
        """Both, as the conductor stores them for `status` and `why`."""
        return Note(what=self.text, next_step=self.next_step)


def seconds_of(timestamp: str | None) -> float | None:
    """Seconds since 1970 of an RFC 3339 timestamp of the API."""
    return None if not timestamp else datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def condition(thing: Object, kind: str) -> Object | None:
    """The condition of that type which is True, else None."""
    for one in thing.get("status", {}).get("conditions") or []:
        if one.get("type") == kind and one.get("status") == "True":
            found: Object = one
            return found
    return None


def job_has_ended(job: Object) -> bool:
    """Whether a Job is Complete or Failed."""
    return any(condition(job, kind) for kind in ("Complete", "Failed"))


def pod_has_ended(pod: Object) -> bool:
    """Whether no container of the pod runs any more, or will."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def terminated(pod: Object) -> Object | None:
    """The state of the pod's ended main container: exitCode, reason, message, startedAt, finishedAt."""
    return _main_state(pod, "terminated")


def _main_state(pod: Object, kind: str) -> Object | None:
    for status in pod.get("status", {}).get("containerStatuses") or []:
        state: Object | None = (status.get("state") or {}).get(kind)
        if state and status.get("name") in _MAIN_CONTAINERS:
            return state
    return None


def failed_pod(pods: list[Object]) -> Object | None:
    """Of a Job's pods the one whose end says why the Job failed; None where none says anything.

    Only the last pod of each number counts: those before were replaced. The pods of several nodes end one after
    the other because of the first: what names a cause goes before what says that a peer has gone.
    """
    last: dict[str, Object] = {}
    for pod in sorted(pods, key=_ended_at):
        if _end_of(pod, "") is not None:
            last[str(pod["metadata"].get("labels", {}).get(_INDEX_LABEL, 0))] = pod
    return min(last.values(), key=lambda pod: (_consequence(pod), _ended_at(pod)), default=None)


def _consequence(pod: Object) -> int:
    """How likely a pod's end is only what another's end led to."""
    _, failure = _end_of(pod, "") or (0, Failure(Reason.KILLED, ""))
    if failure.reason in (Reason.OUT_OF_MEMORY, Reason.DISK_FULL):
        return 0
    retry = DISPOSITIONS[failure.reason].retry
    if retry is Retry.NEVER:
        return 1
    if condition(pod, "DisruptionTarget"):
        return 2
    return 3 if retry is Retry.OWN_FAILURE else 4


def failure_of(job: Object | None, pods: list[Object], *, memory_advice: str) -> tuple[int, Failure]:
    """Why a Job failed: exit code and failure, from its pods; `job` None is one that was deleted.

    `memory_advice` is what to do about a memory kill.
    """
    pod = failed_pod(pods)
    end = _end_of(pod, memory_advice) if pod is not None else None
    if end is not None:
        return end
    failed = condition(job, "Failed") if job else None
    if job is None:
        return 137, Failure(Reason.KILLED, "its Job was deleted")
    if failed is not None and failed.get("reason") == "DeadlineExceeded":
        return 137, Failure(Reason.KILLED, "its Job ran into activeDeadlineSeconds")
    return 137, Failure(Reason.KILLED, "its pod was deleted before it ended")


def _end_of(pod: Object, memory_advice: str) -> tuple[int, Failure] | None:
    """How a pod failed: exit code and failure; None where it has not, or does not say."""
    status = pod.get("status", {})
    said = first_line(status.get("message", ""))
    if status.get("reason") == "Evicted" and not condition(pod, "DisruptionTarget"):
        return 137, _evicted(said or "the pod was evicted")
    state = terminated(pod)
    if state is not None:
        return _container_failure(pod, state, memory_advice) if state.get("exitCode", 0) else None
    if status.get("phase") != "Failed":
        return None
    for one in status.get("initContainerStatuses") or []:
        ended = (one.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            name, code = one.get("name", "?"), int(ended["exitCode"])
            text = ": ".join(filter(None, (f"the init container {name} ended with exit code {code}", said)))
            step = f"read its log: kubectl logs {pod['metadata']['name']} -c {name}"
            return code, Failure(Reason.INTERNAL, text, next_step=step)
    if status.get("reason"):
        return 137, Failure(
            Reason.KILLED, ": ".join(filter(None, ("its node did not run it", status["reason"], said)))
        )
    return None


def _evicted(why: str) -> Failure:
    """By its node, and not for the node's own need (that would be a disruption, and the Job replaces the pod)."""
    if "exceed" not in why:
        return Failure(Reason.KILLED, why)
    return Failure(
        Reason.DISK_FULL,
        why,
        next_step="launcher retry RUN --overlay FILE, with a larger sizeLimit and more ephemeral-storage",
    )


def _container_failure(pod: Object, state: Object, memory_advice: str) -> tuple[int, Failure]:
    code = int(state.get("exitCode", 137))
    if state.get("reason") == "OOMKilled":
        limit = _memory_limit(pod)
        return code, Failure(
            Reason.OUT_OF_MEMORY,
            f"the kernel killed it for memory (OOMKilled){f', its limit is {limit}' if limit else ''}",
            next_step=memory_advice,
        )
    try:
        return code, Failure.from_json(json.loads(state.get("message") or ""))
    except (ValueError, KeyError, TypeError):
        pass  # killed before it could say anything: the exit code speaks
    if state.get("reason") in ("ContainerCannotRun", "StartError"):
        return code, Failure(
            Reason.CANNOT_START, first_line(state.get("message", "the container cannot run"))
        )
    reason = from_exit_code(code)
    lost = condition(pod, "DisruptionTarget")
    why = f": {first_line(lost.get('message', ''))}" if lost else ""
    return code, Failure(reason, f"its pod ended with exit code {code}{why}")


def obstacle(pod: Object, events: list[Object], now: float) -> Obstacle | None:
    """Why a pod that should run does not, or is not heard of; None where it runs or has ended."""
    status = pod.get("status", {})
    if pod_has_ended(pod):
        return None
    if pod["metadata"].get("deletionTimestamp"):
        return _overdue(pod, now) or _unheard(pod)
    for one in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        state = one.get("state") or {}
        if waiting := state.get("waiting"):
            if waiting.get("reason") in ("ContainerCreating", "PodInitializing", None):
                continue
            text = ": ".join(filter(None, (waiting["reason"], first_line(waiting.get("message", "")))))
            return Obstacle(text, hopeless=waiting["reason"] in _HOPELESS)
        if state.get("running"):
            return _unheard(pod)
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return Obstacle(f"{one.get('reason', 'Unschedulable')}: {first_line(one.get('message', ''))}")
    telling = [event for event in events if event.get("reason") in START_FAILURE_EVENTS]
    if telling:
        newest = max(telling, key=event_time)
        return Obstacle(f"{newest['reason']}: {first_line(newest.get('message', ''))}")
    return None


def _unheard(pod: Object) -> Obstacle | None:
    """The node's container is ready and the pod is not: so says the cluster's own controller of a silent node."""
    status = pod.get("status", {})
    if not any(one.get("ready") for one in status.get("containerStatuses") or []):
        return None
    for one in status.get("conditions") or []:
        if one.get("type") == "Ready" and one.get("status") == "False" and not one.get("reason"):
            node = pod.get("spec", {}).get("nodeName", "?")
            text = f"node {node} is not heard of: the pod is taken away from it if it stays silent"
            return Obstacle(text, next_step=f"kubectl describe node {node}", of_node=True)
    return None


def _overdue(pod: Object, now: float) -> Obstacle | None:
    """A pod that is long past the time it was given to end: its node does not answer."""
    deleted_at = seconds_of(pod["metadata"].get("deletionTimestamp")) or now
    if now - deleted_at < _OVERDUE_S:
        return None
    node = pod.get("spec", {}).get("nodeName", "?")
    return Obstacle(
        f"node lost: {node} does not answer, so the pod cannot be replaced",
        next_step=f"once it is sure that the node is down: kubectl delete node {node}, or kubectl taint node {node} "
        "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
        of_node=True,
    )


def times(pods: list[Object], now: float) -> tuple[PodTimes, ...]:
    """Measured seconds of each pod, the oldest first: waiting (created to started) and running (to its end).

    `lost` marks one that was taken away (evicted, preempted, its node lost) and replaced.
    """
    found = []
    for pod in sorted(pods, key=lambda one: one["metadata"].get("creationTimestamp") or ""):
        created = seconds_of(pod["metadata"].get("creationTimestamp")) or now
        state = terminated(pod) or {}
        running = _main_state(pod, "running") or {}
        started = seconds_of(state.get("startedAt") or running.get("startedAt"))
        ended = seconds_of(state.get("finishedAt")) or now
        found.append(
            PodTimes(
                pod=pod["metadata"]["name"],
                node=pod.get("spec", {}).get("nodeName"),
                # Never below 0: the clocks are those of the API server, of the node and of this machine.
                waiting_s=round(max(0.0, (started if started is not None else ended) - created), 3),
                running_s=round(max(0.0, ended - started), 3) if started is not None else 0.0,
                exit_code=state.get("exitCode"),
                lost=condition(pod, "DisruptionTarget") is not None,
            )
        )
    return tuple(found)


def _ended_at(pod: Object) -> str:
    """When its program ended; of a pod that does not say, when it was made."""
    return str((terminated(pod) or {}).get("finishedAt") or pod["metadata"].get("creationTimestamp") or "")


def _memory_limit(pod: Object) -> str:
    for container in pod.get("spec", {}).get("containers") or []:
        limit = (container.get("resources") or {}).get("limits", {}).get("memory")
        if limit:
            return str(limit)
    return ""


def event_time(event: Object) -> str:
    """When an Event was last seen."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def first_line(text: str) -> str:
    """A message of the cluster as a line for people, unable to move a terminal's cursor."""
    return printable(" ".join(text.split()))[:500]
