"""What pods say: how a Job ended and why, why a pod does not start, how long it took.

Pure: reads the API's objects (camelCase dicts) and knows no client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from launcher.outcome import Failure, Reason, from_exit_code
from launcher.runs import NEXT

Object = dict[str, Any]

#: What a container waits for that no waiting cures. ImagePullBackOff may: a registry can be down.
_HOPELESS = ("CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError")
#: So long after the end of its grace period a pod that is still there is on a node that does not answer.
_OVERDUE_S = 30.0
#: Reasons of Events that tell why a pod does not start.
TELLING_EVENTS = (
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
    def note(self) -> str:
        """Both, as a conductor leaves them for `status` and `why`."""
        return f"{self.text}{NEXT}{self.next_step}" if self.next_step else self.text


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
    for status in pod.get("status", {}).get("containerStatuses") or []:
        state: Object | None = (status.get("state") or {}).get("terminated")
        if state:
            return state
    return None


def failure_of(job: Object | None, pods: list[Object], *, memory_advice: str) -> tuple[int, Failure]:
    """Why a Job failed: exit code and failure, from its pods; `job` None is one that was deleted.

    `memory_advice` is what to do about a memory kill.
    """
    for pod in sorted(pods, key=_ended_at, reverse=True):
        state = terminated(pod)
        if pod.get("status", {}).get("reason") == "Evicted" and not condition(pod, "DisruptionTarget"):
            return 137, _evicted(_first_line(pod["status"].get("message", "the pod was evicted")))
        if state is None or state.get("exitCode", 0) == 0:
            continue
        return _container_failure(pod, state, memory_advice)
    failed = condition(job, "Failed") if job else None
    if job is None:
        return 137, Failure(Reason.KILLED, "its Job was deleted")
    if failed is not None and failed.get("reason") == "DeadlineExceeded":
        return 137, Failure(Reason.KILLED, "its Job ran into activeDeadlineSeconds")
    return 137, Failure(Reason.KILLED, "its pod was deleted before it ended")


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
            Reason.CANNOT_START, _first_line(state.get("message", "the container cannot run"))
        )
    reason = from_exit_code(code)
    lost = condition(pod, "DisruptionTarget")
    why = f": {_first_line(lost.get('message', ''))}" if lost else ""
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
                break
            text = ": ".join(filter(None, (waiting["reason"], _first_line(waiting.get("message", "")))))
            return Obstacle(text, hopeless=waiting["reason"] in _HOPELESS)
        if state.get("running"):
            return _unheard(pod)
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return Obstacle(f"{one.get('reason', 'Unschedulable')}: {_first_line(one.get('message', ''))}")
    telling = [event for event in events if event.get("reason") in TELLING_EVENTS]
    if telling:
        newest = max(telling, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return Obstacle(f"{newest['reason']}: {_first_line(newest.get('message', ''))}")
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


def times(pods: list[Object], now: float) -> tuple[dict[str, Any], ...]:
    """Measured seconds of each pod, the oldest first: waiting (created to started) and running (to its end).

    `lost` marks one that was taken away (evicted, preempted, its node lost) and replaced.
    """
    found = []
    for pod in sorted(pods, key=lambda one: one["metadata"].get("creationTimestamp") or ""):
        created = seconds_of(pod["metadata"].get("creationTimestamp")) or now
        state = terminated(pod) or {}
        running: Object = next(
            (
                one["state"]["running"]
                for one in pod.get("status", {}).get("containerStatuses") or []
                if (one.get("state") or {}).get("running")
            ),
            {},
        )
        started = seconds_of(state.get("startedAt") or running.get("startedAt"))
        ended = seconds_of(state.get("finishedAt")) or now
        found.append(
            {
                "pod": pod["metadata"]["name"],
                "node": pod.get("spec", {}).get("nodeName"),
                "waiting_s": round((started if started is not None else ended) - created, 3),
                "running_s": round(ended - started, 3) if started is not None else 0.0,
                "exit_code": state.get("exitCode"),
                "lost": condition(pod, "DisruptionTarget") is not None,
            }
        )
    return tuple(found)


def _ended_at(pod: Object) -> str:
    return str((terminated(pod) or {}).get("finishedAt") or "")


def _memory_limit(pod: Object) -> str:
    for container in pod.get("spec", {}).get("containers") or []:
        limit = (container.get("resources") or {}).get("limits", {}).get("memory")
        if limit:
            return str(limit)
    return ""


def _first_line(text: str) -> str:
    return " ".join(text.split())[:500]
