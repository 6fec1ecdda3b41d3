"""Jobs, pods and Events as the API returns them (camelCase dicts): conditions, states, times. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from launcher.system.text import printable

Object = dict[str, Any]

#: Label of a pod: the Job that it belongs to.
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
#: Containers that run the program; an overlay may add others, whose ends do not count.
_MAIN_CONTAINERS = ("stage", "conductor")
_LONGEST_CHARACTERS = 500


def seconds_of(timestamp: str | None) -> float | None:
    """Seconds since 1970 of an RFC 3339 timestamp of the API."""
    return None if not timestamp else datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def condition(thing: Object, kind: str) -> Object | None:
    """The condition of that type if its status is True, else None."""
    for one in thing.get("status", {}).get("conditions") or []:
        if one.get("type") == kind and one.get("status") == "True":
            found: Object = one
            return found
    return None


def job_has_ended(job: Object) -> bool:
    """Whether a Job is Complete or Failed."""
    return any(condition(job, kind) for kind in ("Complete", "Failed"))


def pod_has_ended(pod: Object) -> bool:
    """Whether no container of the pod runs or will run."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def terminated(pod: Object) -> Object | None:
    """The terminated state of the pod's main container: exitCode, reason, message, startedAt, finishedAt."""
    return main_state(pod, "terminated")


def main_state(pod: Object, kind: str) -> Object | None:
    """The state of the pod's main container if it is of that kind (`running`, `waiting`, `terminated`)."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        state: Object | None = (status.get("state") or {}).get(kind)
        if state and status.get("name") in _MAIN_CONTAINERS:
            return state
    return None


def event_time(event: Object) -> str:
    """When an Event was last seen."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def one_line(text: str) -> str:
    """A message of the cluster as one printable line."""
    return printable(" ".join(text.split()))[:_LONGEST_CHARACTERS]


def name_of(thing: Object) -> str:
    """The name of an object."""
    return str(thing["metadata"]["name"])
