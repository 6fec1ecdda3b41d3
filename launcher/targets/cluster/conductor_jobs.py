"""The Jobs of a run's conductors."""

from __future__ import annotations

from launcher.manifests.labels import ATTEMPT_LABEL, RUN_LABEL
from launcher.store.runs import Attempt
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.objects import Object, job_has_ended, name_of, seconds_of


def live_conductors(cluster: Cluster, run_id: str) -> list[Object]:
    """The run's conductor Jobs that have not ended."""
    return [job for job in cluster.list("Job", labels=_labels(run_id)) if not job_has_ended(job)]


def conductor_job(cluster: Cluster, attempt: Attempt) -> Object | None:
    """The newest conductor Job of the attempt."""
    labels = {**_labels(attempt.run_id), ATTEMPT_LABEL: str(attempt.number)}
    jobs = cluster.list("Job", labels=labels)
    return max(jobs, key=lambda job: str(job["metadata"].get("creationTimestamp")), default=None)


def take_over(cluster: Cluster, attempt: Attempt, own: Object) -> None:
    """Delete the run's older conductor Jobs (another placement, an earlier attempt) and with them their stages.

    The Job of an earlier attempt whose conductor has exited is kept, because its pods show how it ended.
    """
    for job in live_conductors(cluster, attempt.run_id):
        if _age_order(job) < _age_order(own) and not _has_exited(job, attempt):
            print(f"taking over from {name_of(job)}", flush=True)
            cluster.delete("Job", name_of(job))


def _labels(run_id: str) -> dict[str, str]:
    return {RUN_LABEL: run_id, "app.kubernetes.io/component": "conductor"}


def _has_exited(job: Object, attempt: Attempt) -> bool:
    """Whether the Job is an earlier attempt's whose conductor has exited in good order."""
    number = str(job["metadata"].get("labels", {}).get(ATTEMPT_LABEL, ""))
    if not number.isdigit() or int(number) == attempt.number:
        return False
    return Attempt(attempt.store, attempt.run_id, int(number)).conductor_exited


def _age_order(job: Object) -> tuple[float, str]:
    """Sort key by age; names decide within a second, so that two conductors never delete each other."""
    return seconds_of(job["metadata"].get("creationTimestamp")) or 0.0, name_of(job)
