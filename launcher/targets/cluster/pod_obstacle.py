"""What keeps a pod from running: image, Secret, scheduling, quota, a lost node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.store.records import Note
from launcher.targets.cluster.api_errors import QUOTA_MESSAGE
from launcher.targets.cluster.objects import Object, event_time, one_line, pod_has_ended, seconds_of

#: Reasons of a waiting container that no waiting resolves. ImagePullBackOff may pass: a registry can be down.
_PERMANENT = ("CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError")
#: A pod that exists this long after the end of its grace period is on a node that does not answer.
_OVERDUE_S = 30.0
#: Reasons of Events that explain why a pod does not start.
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
    """What keeps a pod from running, and the next step if there is a particular one.

    `cause` decides what follows: `permanent` (no waiting resolves it), `no-room` (resolved once other pods have
    ended), `node` (its node does not answer; the pod may run there, so none is started in its place).
    """

    text: str
    next_step: str = ""
    cause: Literal["", "permanent", "no-room", "node"] = ""

    @property
    def note(self) -> Note:
        """For the conductor's heartbeat, where `status` and `why` read it."""
        return Note(what=self.text, next_step=self.next_step)


def obstacle_of_event(event: Object, *, reason: bool = False) -> Obstacle:
    """The obstacle that an Event's message describes, with the Event's reason in front if `reason`."""
    text = one_line(str(event.get("message", "")))
    cause: Literal["", "no-room"] = "no-room" if QUOTA_MESSAGE in text else ""
    return Obstacle(f"{event['reason']}: {text}" if reason else text, cause=cause)


def obstacle(pod: Object, events: list[Object], now: float) -> Obstacle | None:
    """Why a pod does not run or its node does not answer; None if it runs or has ended."""
    status = pod.get("status", {})
    if pod_has_ended(pod):
        return None
    if pod["metadata"].get("deletionTimestamp"):
        return _overdue(pod, now) or _silent_node(pod)
    for one in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        state = one.get("state") or {}
        if waiting := state.get("waiting"):
            if waiting.get("reason") in ("ContainerCreating", "PodInitializing", None):
                continue
            text = ": ".join(filter(None, (waiting["reason"], one_line(waiting.get("message", "")))))
            return Obstacle(text, cause="permanent" if waiting["reason"] in _PERMANENT else "")
        if state.get("running"):
            return _silent_node(pod)
    for one in status.get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            reason = str(one.get("reason", "Unschedulable"))
            text = f"{reason}: {one_line(one.get('message', ''))}"
            return Obstacle(text, cause="no-room" if reason == "Unschedulable" else "")
    failures = [event for event in events if event.get("reason") in START_FAILURE_EVENTS]
    return obstacle_of_event(max(failures, key=event_time), reason=True) if failures else None


def _silent_node(pod: Object) -> Obstacle | None:
    """A ready container in a pod that is not ready: the node controller has lost contact with the node."""
    status = pod.get("status", {})
    if not any(one.get("ready") for one in status.get("containerStatuses") or []):
        return None
    for one in status.get("conditions") or []:
        if one.get("type") == "Ready" and one.get("status") == "False" and not one.get("reason"):
            node = pod.get("spec", {}).get("nodeName", "?")
            text = f"node {node} has stopped responding: the pod is evicted if it stays silent"
            return Obstacle(text, next_step=f"kubectl describe node {node}", cause="node")
    return None


def _overdue(pod: Object, now: float) -> Obstacle | None:
    """A deleted pod that is long past its grace period: its node does not answer."""
    deleted_at = seconds_of(pod["metadata"].get("deletionTimestamp")) or now
    if now - deleted_at < _OVERDUE_S:
        return None
    node = pod.get("spec", {}).get("nodeName", "?")
    return Obstacle(
        f"node lost: {node} does not answer, so the pod cannot be replaced",
        next_step=f"if the node is down for certain: kubectl delete node {node}, or kubectl taint node {node} "
        "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
        cause="node",
    )
