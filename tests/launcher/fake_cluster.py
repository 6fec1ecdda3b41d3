"""An in-memory fake of one namespace's Jobs, pods and Events, for tests of the cluster backend."""

from __future__ import annotations

import copy
import itertools
import threading
from datetime import UTC, datetime
from typing import Any

from launcher.outcome import Failure
from launcher.targets.cluster.client import Applied, Conflict

Object = dict[str, Any]
_JOB_NAME = "batch.kubernetes.io/job-name"


class FakeInformer:
    def __init__(self, cluster: FakeCluster, kind: str) -> None:
        self._cluster, self._kind = cluster, kind
        self.changed = threading.Event()

    def objects(self) -> dict[str, Object]:
        return copy.deepcopy(self._cluster.things[self._kind])

    def check(self) -> None:
        if self._cluster.stale is not None:
            raise self._cluster.stale

    def stop(self) -> None: ...


class FakeCluster:
    """Creates a pod for every Job at once; the test decides its fate."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Object]] = {"Job": {}, "Pod": {}, "Event": {}}
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.rejection: Failure | None = None
        self.requests = 0
        #: Why the views are out of date.
        self.stale: Failure | None = None
        self.now = 1_000_000.0
        #: Whether pods outlive their deleted Job, as while they save their progress.
        self.lingering = False
        self._numbers = itertools.count()

    # -- the API --------------------------------------------------------------------------
    def watch(self, kind: str, *, labels: dict[str, str]) -> FakeInformer:
        return FakeInformer(self, kind)

    def get(self, kind: str, name: str) -> Object | None:
        return self.things[kind].get(name)

    def list(
        self, kind: str, *, labels: dict[str, str] | None = None, fields: str | None = None
    ) -> list[Object]:
        wanted = (labels or {}).items()
        found = [o for o in self.things[kind].values() if wanted <= o["metadata"].get("labels", {}).items()]
        if fields:
            about = fields.partition("=")[2]
            found = [o for o in found if o["involvedObject"]["name"] == about]
        return copy.deepcopy(found)

    def create(self, manifest: Object) -> Applied:
        if self.rejection is not None:
            raise self.rejection
        name = manifest["metadata"]["name"]
        if name in self.things["Job"]:
            raise Conflict("Job", name)
        job = {**copy.deepcopy(manifest), "status": {}}
        self.things["Job"][name] = job
        self.created.append(name)
        self.add_pod(job)
        return Applied(job, ())

    def apply(self, manifest: Object) -> Applied:
        things = self.things.setdefault(manifest["kind"], {})
        stored = things.setdefault(manifest["metadata"]["name"], {**copy.deepcopy(manifest), "status": {}})
        stored["metadata"].setdefault("uid", manifest["metadata"]["name"])
        return Applied(copy.deepcopy(stored), ())

    def delete(self, kind: str, name: str, *, uid: str | None = None) -> bool:
        if uid is not None and self.things[kind].get(name, {}).get("metadata", {}).get("uid") != uid:
            return False
        self.deleted.append(name)
        found = self.things[kind].pop(name, None)
        for pod in [] if self.lingering else self.pods_of(name):
            del self.things["Pod"][pod["metadata"]["name"]]
        return found is not None

    # -- events, triggered by the test ----------------------------------------------------
    def add_pod(self, job: Object) -> Object:
        name = f"{job['metadata']['name']}-{next(self._numbers):05d}"
        pod = {
            "metadata": {
                "name": name,
                "uid": name,
                "creationTimestamp": self.stamp(),
                "labels": {**job["metadata"]["labels"], _JOB_NAME: job["metadata"]["name"]},
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{"name": "stage", "resources": {"limits": {"memory": "8Gi"}}}],
            },
            "status": {"phase": "Pending"},
        }
        self.things["Pod"][name] = pod
        return pod

    def stamp(self, after_s: float = 0.0) -> str:
        return datetime.fromtimestamp(self.now + after_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def pods_of(self, job: str) -> list[Object]:
        return [p for p in self.things["Pod"].values() if p["metadata"]["labels"][_JOB_NAME] == job]

    def run(self, job: str) -> None:
        for pod in self.pods_of(job):
            pod["status"] = {
                "phase": "Running",
                "containerStatuses": [{"name": "stage", "state": {"running": {"startedAt": self.stamp()}}}],
            }

    def end(
        self, job: str, code: int, *, reason: str = "Error", message: str = "", ran_s: float = 5.0
    ) -> None:
        """The Job's pods end with `code`, and so does the Job."""
        for pod in self.pods_of(job):
            state = {
                "exitCode": code,
                "reason": "Completed" if code == 0 else reason,
                "message": message,
                "startedAt": self.stamp(),
                "finishedAt": self.stamp(ran_s),
            }
            pod["status"] = {
                "phase": "Succeeded" if code == 0 else "Failed",
                "containerStatuses": [{"name": "stage", "state": {"terminated": state}}],
            }
        kind = "Complete" if code == 0 else "Failed"
        self.things["Job"][job]["status"] = {"conditions": [{"type": kind, "status": "True"}]}

    def wait_for(self, job: str, reason: str, message: str) -> None:
        """The Job's pods wait for something."""
        for pod in self.pods_of(job):
            pod["status"] = {
                "phase": "Pending",
                "containerStatuses": [
                    {"name": "stage", "state": {"waiting": {"reason": reason, "message": message}}}
                ],
            }
