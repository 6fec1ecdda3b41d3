"""Client of one namespace, in plain dicts (the API's JSON): apply, create, get, list, delete, watch, logs.

Every error is a Failure. Requests to a server that is busy, restarting or unreachable are retried for up to a
minute. A run's objects never change: they are created, or left as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.system.json_text import parse_json
from launcher.targets.cluster import kubeconfig
from launcher.targets.cluster.api_errors import KubernetesApiError, answer_of
from launcher.targets.cluster.connection import RETRY_TIMEOUT_S, Connection, Request
from launcher.targets.cluster.informer import Informer
from launcher.targets.cluster.stream import Stream

FIELD_MANAGER = "launcher"

#: Kind -> (API group and version, plural).
KINDS: dict[str, tuple[str, str]] = {
    "Job": ("batch/v1", "jobs"),
    "Pod": ("v1", "pods"),
    "ConfigMap": ("v1", "configmaps"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Secret": ("v1", "secrets"),
    "Event": ("v1", "events"),
    "PodTemplate": ("v1", "podtemplates"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "Role": ("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
    "Node": ("v1", "nodes"),
    "Namespace": ("v1", "namespaces"),
    "StorageClass": ("storage.k8s.io/v1", "storageclasses"),
}
#: Objects as the API's JSON.
Objects = list[dict[str, Any]]
#: Kinds that are not in a namespace.
CLUSTER_SCOPED = frozenset({"Node", "Namespace", "StorageClass"})


def owner_reference(job: dict[str, Any]) -> dict[str, Any]:
    """Makes an object a child of a Job for the garbage collector only.

    `controller` is false because Kueue treats the children that a queued object controls as parts of it.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "controller": False,
        "blockOwnerDeletion": False,
    }


class Conflict(Exception):
    """An object of that kind and name exists."""

    def __init__(self, kind: str, name: str):
        super().__init__(f"{kind} {name} already exists")
        self.kind = kind
        self.name = name


@dataclass(frozen=True)
class Applied:
    """The object as the server stored it (or would, on a dry run), and the server's warnings."""

    object: dict[str, Any]
    warnings: tuple[str, ...]


class Cluster:
    """One namespace of one cluster. Thread-safe."""

    def __init__(self, connection: Connection, namespace: str):
        self.connection = connection
        self.namespace = namespace

    @classmethod
    def connect(
        cls, namespace: str | None = None, context: str | None = None, *, timeout_s: float = RETRY_TIMEOUT_S
    ) -> Cluster:
        """With a pod's service account, or the kubeconfig outside a pod. Sends no request."""
        access = kubeconfig.load(context)
        connection = Connection(access, lambda: kubeconfig.load(context), timeout_s=timeout_s)
        return cls(connection, namespace or access.namespace)

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, retries and watches included."""
        return self.connection.requests

    @property
    def where(self) -> str:
        """For messages: the server and the namespace."""
        return f"{self.connection.host} (namespace {self.namespace})"

    def apply(self, manifest: dict[str, Any], *, dry_run: bool = False) -> Applied:
        """Server-side apply: creates the object unless it exists with this content.

        Raises KubernetesApiError with cause "held" for a field that another manager owns with another value, with
        cause "immutable" for an immutable object with other content.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        return self._write("PATCH", kind, name, manifest, "apply", dry_run)

    def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> Applied:
        """Create the object. Raises Conflict if the name is taken, unless this call created it.

        A try whose answer was lost may have taken effect: an object with the same labels and owners is then
        the result.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        try:
            return self._write("POST", kind, name, manifest, "create", dry_run)
        except KubernetesApiError as error:
            if error.cause != "exists":
                raise
            existing = self.get(kind, name) if error.repeated and not dry_run else None
            if existing is None or not _is_ours(existing, manifest):
                raise Conflict(kind, name) from None
            return Applied(existing, ())

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object; None if it does not exist."""
        try:
            answer = self.connection.ask(
                Request("GET", self._path(kind, name), f"get {kind} {name}"), where=self.where
            )
        except KubernetesApiError as error:
            if error.cause == "absent":
                return None
            raise
        return _object(answer.body)

    def list(self, kind: str, *, labels: dict[str, str] | None = None, fields: str | None = None) -> Objects:
        """All objects with these labels (and this field selector), each with its kind and apiVersion."""
        return self.list_with_version(kind, labels=labels, fields=fields)[0]

    def list_with_version(
        self,
        kind: str,
        *,
        labels: dict[str, str] | None = None,
        fields: str | None = None,
        timeout_s: float | None = None,
    ) -> tuple[Objects, str]:
        """As `list`, with the resourceVersion from which to watch."""
        query = [("labelSelector", selector(labels))] if labels else []
        if fields:
            query.append(("fieldSelector", fields))
        request = Request("GET", self._path(kind), f"list {KINDS[kind][1]}", tuple(query))
        answer = _object(self.connection.ask(request, timeout_s=timeout_s, where=self.where).body)
        items = [{"apiVersion": KINDS[kind][0], "kind": kind, **item} for item in answer.get("items") or ()]
        return items, answer["metadata"]["resourceVersion"]

    def delete(self, kind: str, name: str, *, uid: str | None = None) -> bool:
        """Delete the object and, in the background, its children; False if it (with that uid) did not exist."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        request = Request("DELETE", self._path(kind, name), f"delete {kind} {name}", body=body)
        try:
            self.connection.ask(request, where=self.where)
        except KubernetesApiError as error:
            # After a lost answer: the first try has deleted it.
            if error.cause == "absent":
                return error.repeated
            if error.status == 409 and uid is not None:
                return False
            raise
        return True

    def watch(self, kind: str, *, labels: dict[str, str]) -> Informer:
        """A live view of the objects with these labels. Raises Failure if they may not be listed."""
        return Informer(self, kind, labels)

    def open_watch(self, kind: str, labels: dict[str, str], version: str, timeout_s: int) -> Stream:
        """Events since `version`, one JSON document per line, bookmarks included."""
        query = (
            ("watch", "1"),
            ("labelSelector", selector(labels)),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(timeout_s)),
        )
        request = Request("GET", self._path(kind), f"watch {KINDS[kind][1]}", query)
        # Bookmarks come at least once a minute: a longer silence is a dead connection.
        return self.connection.open(request, read_timeout_s=90.0, where=self.where)

    def pod_log(
        self,
        pod: str,
        container: str,
        *,
        since_time: str | None = None,
        tail_lines: int | None = None,
        timestamps: bool = False,
    ) -> bytes:
        """What the container has written so far (the node's current log file); empty before it has started.

        `since_time` is RFC 3339, in whole seconds. Raises KubernetesApiError ("absent") if the pod is gone.
        """
        request = self._log_request(
            pod, container, since_time=since_time, tail_lines=tail_lines, timestamps=timestamps, follow=False
        )
        try:
            return self.connection.ask(request, where=self.where).body
        except KubernetesApiError as error:
            if error.cause == "waiting":
                return b""
            raise

    def open_log(self, pod: str, container: str, since_time: str | None) -> Stream:
        """The container's log with timestamps, from `since_time` on and as it is written."""
        request = self._log_request(
            pod, container, since_time=since_time, tail_lines=None, timestamps=True, follow=True
        )
        # A stage may print nothing for long; TCP keepalive notices a node that is gone.
        return self.connection.open(request, read_timeout_s=600.0, where=self.where)

    def _log_request(
        self,
        pod: str,
        container: str,
        *,
        since_time: str | None,
        tail_lines: int | None,
        timestamps: bool,
        follow: bool,
    ) -> Request:
        parameters = {
            "container": container,
            "sinceTime": since_time,
            "tailLines": None if tail_lines is None else str(tail_lines),
            "timestamps": "true" if timestamps else None,
            "follow": "true" if follow else None,
        }
        query = tuple((name, value) for name, value in parameters.items() if value is not None)
        return Request("GET", f"{self._path('Pod', pod)}/log", f"read the log of Pod {pod}", query)

    def _write(
        self, method: str, kind: str, name: str, manifest: dict[str, Any], verb: str, dry_run: bool
    ) -> Applied:
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        if dry_run:
            query.append(("dryRun", "All"))
        applying = method == "PATCH"
        request = Request(
            method,
            self._path(kind, name if applying else None),
            f"{verb} {kind} {name}",
            tuple(query),
            manifest,
            "application/apply-patch+yaml" if applying else "application/json",
        )
        answer = self.connection.ask(request, where=self.where)
        return Applied(_object(answer.body), answer.warnings)

    def _path(self, kind: str, name: str | None = None) -> str:
        version, plural = KINDS[kind]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        scope = "" if kind in CLUSTER_SCOPED else f"/namespaces/{self.namespace}"
        return f"{base}{scope}/{plural}" + (f"/{name}" if name else "")


def connect(namespace: str | None, context: str | None, say: Callable[[str], None]) -> Cluster:
    """A client of the cluster, after its API server has answered once. Raises Failure soon if it does not.

    Later requests are retried; `say` reports the wait.
    """
    cluster = Cluster.connect(namespace, context)
    cluster.connection.say = say
    cluster.connection.reach(where=cluster.where)
    return cluster


def selector(labels: dict[str, str]) -> str:
    """The label selector that requires all of these."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _object(body: bytes) -> dict[str, Any]:
    """An object of the API without `managedFields`, half of its size and unused here.

    Raises Failure(NETWORK) for a body that is not JSON: a proxy's page instead of the API server's answer.
    """
    try:
        value: dict[str, Any] = parse_json(body)
    except ValueError:
        raise Failure(
            Reason.NETWORK,
            "a proxy answered instead of the API server",
            problems=(answer_of(body).get("message", "")[:200],),
            next_step="try again; kubectl get --raw /readyz shows whether the API server answers",
        ) from None
    for item in [value, *(value.get("items") or ())]:
        item.get("metadata", {}).pop("managedFields", None)
    return value


def _is_ours(existing: dict[str, Any], manifest: dict[str, Any]) -> bool:
    wanted, found = manifest["metadata"], existing["metadata"]
    labels = found.get("labels") or {}
    same_labels = all(labels.get(name) == value for name, value in (wanted.get("labels") or {}).items())
    owners = [{owner.get("uid") for owner in m.get("ownerReferences") or ()} for m in (wanted, found)]
    return same_labels and bool(wanted.get("labels")) and owners[0] == owners[1]
