"""The run's lease as its conductor's pod takes it: waits for a live conductor elsewhere, not for a pod that is gone."""

from __future__ import annotations

import socket
from collections.abc import Callable

from launcher.store import Store
from launcher.store.lease import Lease, acquire, run_lease
from launcher.store.records import LeaseHolder
from launcher.store.runs import Attempt
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.objects import Object

_POLL_S = 2.0


def wait_for_run(
    cluster: Cluster, store: Store, attempt: Attempt, job: Object, stop: Callable[[float], bool]
) -> Lease | None:
    """The run's lease, not entered yet; None if the attempt was closed meanwhile, or `stop(seconds)` is true.

    `stop` waits for so many seconds or until this pod is asked to stop.
    """
    uid = str(job["metadata"]["uid"])

    def has_ended(holder: LeaseHolder) -> bool:
        # The uid is unique among all clusters, the name of a pod only within its namespace.
        return holder.owner == uid and (holder.host == socket.gethostname() or _is_gone(cluster, holder.host))

    said = ""
    while True:
        got = acquire(
            store,
            run_lease(attempt.run_id),
            f"the conductor of {attempt.run_id}",
            run=attempt.run_id,
            attempt=attempt.number,
            owner=uid,
            has_ended=has_ended,
        )
        if isinstance(got, Lease):
            return got
        if got.holder != said:
            said = got.holder
            print(f"waiting for the conductor on {got.host} (attempt {got.attempt})", flush=True)
        if attempt.outcome is not None and attempt.conductor_exited:
            return None
        if stop(_POLL_S):
            return None


def _is_gone(cluster: Cluster, pod: str) -> bool:
    """Whether the pod, of a Job in this namespace, has ended or was deleted. A lost node's pod is not gone yet."""
    found = cluster.get("Pod", pod)
    return found is None or found.get("status", {}).get("phase") in ("Succeeded", "Failed")
