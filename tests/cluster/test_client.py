"""The launcher's own client against a real API server and a real node."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.manifests.render import Rendered
from launcher.outcome import Failure, Reason
from launcher.spec.site import SecretKey, Secrets, Site
from launcher.targets.cluster import pod_logs
from launcher.targets.cluster.api_errors import KubernetesApiError
from launcher.targets.cluster.client import Cluster as Client
from launcher.targets.cluster.client import Conflict
from launcher.targets.cluster.preflight import preflight

from . import node
from .conftest import Cluster
from .pods import Namespace, restricted_pod
from .processes import wait_for

pytestmark = pytest.mark.cluster
MANIFEST = "tuneyard.dev/manifest"


@pytest.fixture
def client(cluster: Cluster, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The client as the administrator, in a fresh restricted namespace."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    return Client.connect(namespace.name)


def job(name: str, image: str, program: str, **container: Any) -> dict[str, Any]:
    pod = restricted_pod(name, image, program, **container)
    labels = {MANIFEST: "3f9a1", "job": name}
    template = {"metadata": {"labels": labels}, "spec": pod["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 0, "template": template},
    }


def restricted_client(
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    namespace: Namespace,
    *rules: dict[str, Any],
) -> Client:
    """The client as a service account with these rules and no others."""
    path = f"/api/v1/namespaces/{namespace.name}/serviceaccounts"
    namespace.create("serviceaccounts", {"metadata": {"name": "bob"}})
    token = namespace.api.create(
        f"{path}/bob/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    )
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "bob"}}
    subject = {"kind": "ServiceAccount", "name": "bob", "namespace": namespace.name}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "bob"}
    client.apply({**rbac, "kind": "Role", "rules": list(rules)})
    client.apply({**rbac, "kind": "RoleBinding", "subjects": [subject], "roleRef": role})
    config = yaml.safe_load(Path(client.connection.access.source).read_text())
    config["users"] = [
        {"name": user["name"], "user": {"token": token["status"]["token"]}} for user in config["users"]
    ]
    # Beside the administrator's, so that relative paths in it stay valid.
    other = tmp_path / "bob.kubeconfig"
    other.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(other))
    return Client.connect(namespace.name)


def rule(group: str, resources: list[str], *verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}


def test_a_job_is_applied_watched_followed_and_deleted_with_its_pods(client: Client, base_image: str) -> None:
    program = """
import sys
for i in range(40): print("line", i // 2); i % 7 or print("error", i, file=sys.stderr)
print("L" * 50_000)
print("no end", end="")
"""
    manifest = job("talks", base_image, program)
    assert client.apply(manifest).warnings == ()
    uid = client.apply(manifest).object["metadata"]["uid"]
    with client.watch("Pod", labels={"job": "talks"}) as pods:
        written: list[bytes] = []
        pod_logs.follow_job(client, "talks", "main", written.append)
        # The container runtime reads stdout and stderr from two pipes: only the order within each is kept.
        errors = [line for line in written if line.startswith(b"error")]
        assert errors == [b"error %d\n" % i for i in range(0, 40, 7)]
        lines = [line for line in written if not line.startswith(b"error")]
        assert lines[:40] == [b"line %d\n" % (i // 2) for i in range(40)]
        assert lines[40:] == [b"L" * 50_000 + b"\n", b"no end\n"]
        (name,) = pods.objects()
        assert pod_logs.whole(client, name, "main") == b"".join(written).removesuffix(b"\n")
        with pytest.raises(Conflict):
            client.create(manifest)
        assert not client.delete("Job", "talks", uid="another")
        assert client.delete("Job", "talks", uid=uid)
        wait_for("the pods to go with their Job", lambda: not pods.objects(), 60)
    wait_for("the Job to go", lambda: client.get("Job", "talks") is None, 60)
    assert not client.delete("Job", "talks")


def test_objects_are_never_changed_and_never_taken_over(client: Client) -> None:
    labels = {MANIFEST: "3f9a1"}
    plan = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "plan", "labels": labels},
        "immutable": True,
    }
    client.apply({**plan, "data": {"plan.json": "{}"}})
    with pytest.raises(KubernetesApiError) as changed:
        client.apply({**plan, "data": {"plan.json": "[]"}})
    assert changed.value.cause == "immutable"
    # Another field manager changes a label of it.
    path = f"/api/v1/namespaces/{client.namespace}/configmaps/plan?fieldManager=somebody"
    change = {"metadata": {"labels": {MANIFEST: "changed"}}}
    _api(client).request("PATCH", path, change, "application/merge-patch+json")
    with pytest.raises(KubernetesApiError, match="another field manager has changed it") as held:
        client.apply({**plan, "data": {"plan.json": "{}"}})
    assert 'conflict with "somebody"' in held.value.text()


@pytest.mark.parametrize(
    ("resources", "says"),
    [({"limits": {"memory": "16GiB"}}, "quantities must match"), ({"limitz": {}}, "limitz")],
)
def test_a_manifest_that_is_not_valid_is_refused_at_once(
    client: Client, base_image: str, resources: dict[str, Any], says: str
) -> None:
    manifest = job("wrong", base_image, "", resources=resources)
    for ask in (client.apply, client.create):
        began = time.monotonic()
        with pytest.raises(KubernetesApiError) as refused:
            ask(manifest, dry_run=True)
        assert time.monotonic() - began < 10, "not something to wait for"
        assert refused.value.reason is Reason.BAD_EXPERIMENT
        assert says in refused.value.text()


def test_a_missing_permission_is_named(
    client: Client, namespace: Namespace, base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = restricted_client(client, tmp_path, monkeypatch, namespace, rule("", ["pods"], "list"))
    assert bob.list("Pod") == []
    with pytest.raises(Failure) as refused:
        bob.create(job("train", base_image, ""))
    assert refused.value.what == (
        f"system:serviceaccount:{namespace.name}:bob may not create jobs.batch in namespace {namespace.name}"
    )
    with pytest.raises(Failure, match="may not list nodes in the whole cluster"):
        bob.list("Node")


@pytest.mark.alone
def test_a_watch_and_a_log_survive_a_restart_of_the_api_server(
    cluster: Cluster, client: Client, namespace: Namespace, base_image: str
) -> None:
    program = "import time\nfor i in range(150): print('line', i); time.sleep(0.1)"
    client.apply(job("talks", base_image, program))
    written: list[bytes] = []
    with client.watch("Pod", labels={MANIFEST: "3f9a1"}) as pods:
        follower = threading.Thread(
            target=pod_logs.follow_job, args=(client, "talks", "main", written.append), daemon=True
        )
        follower.start()
        wait_for("the first lines", lambda: len(written) > 10, 120)
        node.restart_apiserver(cluster.own())
        second = restricted_pod("second", base_image, "print('done')")
        second["metadata"]["labels"][MANIFEST] = "3f9a1"
        namespace.create("pods", second)
        wait_for("the watch to see what came after", lambda: len(pods.objects()) == 2, 60)
        follower.join(360)
        assert not follower.is_alive()
    assert written == [b"line %d\n" % i for i in range(150)]


@pytest.mark.alone
def test_a_request_waits_for_the_api_server(cluster: Cluster, client: Client) -> None:
    state = cluster.own()
    node.stop_apiserver(state)
    returned = threading.Timer(2.0, node.start_apiserver, (state,))
    returned.start()
    try:
        assert client.list("Pod") == []
    finally:
        returned.join()


def run_of(namespace: str, conductor: dict[str, Any], train: dict[str, Any]) -> Rendered:
    """As `launcher.manifests.render` makes it, small."""
    meta = {"name": "sql-1", "labels": {MANIFEST: "3f9a1"}}
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": meta}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "sql-1"}
    subject = {"kind": "ServiceAccount", "name": "sql-1", "namespace": namespace}
    objects: tuple[dict[str, Any], ...] = (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {**rbac, "kind": "Role", "rules": [rule("batch", ["jobs"], "get", "create")]},
        {**rbac, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "immutable": True,
            "data": {"plan.json": "{}"},
        },
        conductor,
    )
    return Rendered(
        "sql-1", 1, "3f9a1", namespace, objects, {"train": train}, conductor["metadata"]["name"], {}
    )


def gpu_run(namespace: str, image: str) -> Rendered:
    conductor = job("sql-1", image, "")
    conductor["spec"]["template"]["spec"]["serviceAccountName"] = "sql-1"
    train = job("sql-1-train", image, "", resources={"limits": {"nvidia.com/gpu": "1"}})
    spec = train["spec"]["template"]["spec"]
    spec["nodeSelector"] = {"nvidia.com/gpu.product": node.GPU_PRODUCT}
    spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    spec["volumes"] = [
        {"name": "hub", "secret": {"secretName": "hub", "items": [{"key": "token", "path": "t"}]}}
    ]
    return run_of(namespace, conductor, train)


@pytest.mark.xdist_group("gpus")
@pytest.mark.usefixtures("one_gpu")
def test_preflight_names_what_is_missing_and_passes_once_it_is_there(
    client: Client, namespace: Namespace, base_image: str
) -> None:
    site = Site(secrets=Secrets(hub_token=SecretKey(secret="hub", key="token")))
    run = gpu_run(namespace.name, base_image)
    too_many = job("sql-1-many", base_image, "", resources={"limits": {"nvidia.com/gpu": "2"}})
    del too_many["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]
    run.stage_jobs["many"] = too_many
    with pytest.raises(Failure) as refused:
        preflight(client, run, site)
    text = refused.value.text()
    assert "Secret hub does not exist, needed with key token (secrets.hub_token of the site file)" in text
    assert "nvidia.com/gpu: 2 requested, 1 allocatable" in text
    assert "unrestricted capabilities" in text
    assert client.get("ConfigMap", "sql-1") is None, "nothing was applied"
    del run.stage_jobs["many"]
    namespace.create("secrets", {"metadata": {"name": "hub"}, "stringData": {"token": "x"}})
    assert preflight(client, run, site) == ()


@pytest.mark.xdist_group("gpus")
@pytest.mark.usefixtures("one_gpu")
def test_preflight_with_only_a_namespaces_rights_says_what_it_did_not_check(
    client: Client, namespace: Namespace, base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = ("get", "list", "create", "patch", "delete")
    bob = restricted_client(
        client,
        tmp_path,
        monkeypatch,
        namespace,
        rule("", ["pods", "configmaps", "serviceaccounts"], *everything),
        rule("batch", ["jobs"], *everything),
        rule("rbac.authorization.k8s.io", ["roles", "rolebindings"], *everything),
    )
    run = gpu_run(namespace.name, base_image)
    notes = preflight(bob, run, Site())
    assert any("may not get secrets in namespace" in note for note in notes)
    assert any("may not list nodes in the whole cluster" in note for note in notes)
    for manifest in run.objects:
        bob.apply(manifest)


def _api(client: Client) -> Any:
    from .api import Api

    return Api(Path(client.connection.access.source))
