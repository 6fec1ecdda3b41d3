"""Why a Job failed, from its pods. Pure."""

from __future__ import annotations

from launcher.outcome import DISPOSITIONS, Failure, Reason, Retry, from_exit_code
from launcher.targets.cluster.objects import Object, condition, one_line, terminated

#: Label of a pod of an Indexed Job: its number.
_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def failed_pod(pods: list[Object]) -> Object | None:
    """The pod whose end explains why the Job failed; None if no pod failed.

    Only the last pod of each number counts: earlier ones were replaced. On several nodes the first failure ends the
    other pods too: an end with a cause of its own precedes one that may follow from a peer's.
    """
    last: dict[str, Object] = {}
    for pod in sorted(pods, key=_ended_at):
        if _end_of(pod, "") is not None:
            last[str(pod["metadata"].get("labels", {}).get(_INDEX_LABEL, 0))] = pod
    return min(last.values(), key=lambda pod: (_consequence(pod), _ended_at(pod)), default=None)


def _consequence(pod: Object) -> int:
    """Rank of a pod's end: the higher, the likelier it follows from another pod's."""
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
    """Exit code and failure of a Job that failed, or that was deleted (`job` None).

    `memory_advice` is the next step after a memory kill.
    """
    pod = failed_pod(pods)
    end = _end_of(pod, memory_advice) if pod is not None else None
    if end is not None:
        return end
    failed = condition(job, "Failed") if job else None
    if job is None:
        return 137, Failure(Reason.KILLED, "its Job was deleted")
    if failed is not None and failed.get("reason") == "DeadlineExceeded":
        return 137, Failure(Reason.KILLED, "its Job exceeded activeDeadlineSeconds")
    return 137, Failure(Reason.KILLED, "its pod was deleted before it ended")


def _end_of(pod: Object, memory_advice: str) -> tuple[int, Failure] | None:
    """Exit code and failure of a pod; None if it has not failed, or its status does not show how."""
    status = pod.get("status", {})
    message = one_line(status.get("message", ""))
    if status.get("reason") == "Evicted" and not condition(pod, "DisruptionTarget"):
        return 137, _evicted(message or "the pod was evicted")
    state = terminated(pod)
    if state is not None:
        return _container_failure(pod, state, memory_advice) if state.get("exitCode", 0) else None
    if status.get("phase") != "Failed":
        return None
    for one in status.get("initContainerStatuses") or []:
        ended = (one.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            name, code = one.get("name", "?"), int(ended["exitCode"])
            text = ": ".join(
                filter(None, (f"the init container {name} ended with exit code {code}", message))
            )
            step = f"read its log: kubectl logs {pod['metadata']['name']} -c {name}"
            return code, Failure(Reason.INTERNAL, text, next_step=step)
    if status.get("reason"):
        return 137, Failure(
            Reason.KILLED, ": ".join(filter(None, ("its node did not run it", status["reason"], message)))
        )
    return None


def _evicted(why: str) -> Failure:
    """Evicted by its node for its own use of disk; a node under pressure sets DisruptionTarget, and the Job goes on."""
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
        return code, Failure.from_message(state.get("message") or "")
    except ValueError:
        pass  # killed before it wrote a message: the exit code decides
    if state.get("reason") in ("ContainerCannotRun", "StartError"):
        return code, Failure(Reason.CANNOT_START, one_line(state.get("message", "the container cannot run")))
    reason = from_exit_code(code)
    lost = condition(pod, "DisruptionTarget")
    why = f": {one_line(lost.get('message', ''))}" if lost else ""
    return code, Failure(reason, f"its pod ended with exit code {code}{why}")


def _ended_at(pod: Object) -> str:
    """When its program ended; if its status does not show that, when it was created."""
    return str((terminated(pod) or {}).get("finishedAt") or pod["metadata"].get("creationTimestamp") or "")


def _memory_limit(pod: Object) -> str:
    for container in pod.get("spec", {}).get("containers") or []:
        limit = (container.get("resources") or {}).get("limits", {}).get("memory")
        if limit:
            return str(limit)
    return ""
