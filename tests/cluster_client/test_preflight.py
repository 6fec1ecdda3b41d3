"""Preflight: one failure lists everything that the cluster lacks for a run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from launcher.manifests.render import Rendered
from launcher.outcome import Failure, Reason
from launcher.spec.site import SecretKey, Secrets, Site
from launcher.targets.cluster import pod_references
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.node_fit import quantity, why_nowhere
from launcher.targets.cluster.preflight import preflight
from tests.cluster_client.api_server import ApiServer, Asked, Reply, listing, status

Connect = Callable[..., Cluster]
A40 = "NVIDIA-A40"
SITE = Site(secrets=Secrets(hub_token=SecretKey(secret="hub", key="token")))


def pod_spec(**more: Any) -> dict[str, Any]:
    return {"serviceAccountName": "sql-1", "containers": [{"name": "stage"}], **more}


GPU_SPEC = pod_spec(
    nodeSelector={"nvidia.com/gpu.product": A40},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    containers=[{"name": "stage", "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "40Gi"}}}],
    volumes=[
        {"name": "hub", "secret": {"secretName": "hub", "items": [{"key": "token", "path": "token"}]}},
        {"name": "plan", "configMap": {"name": "sql-1"}},
        {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}},
    ],
    imagePullSecrets=[{"name": "pull"}],
)


def job(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": spec}},
    }


def rendered() -> Rendered:
    def named(kind: str) -> dict[str, Any]:
        return {"kind": kind, "metadata": {"name": "sql-1"}}

    objects = (
        *map(named, ("ServiceAccount", "Role", "RoleBinding", "ConfigMap")),
        job("sql-1-conductor", pod_spec()),
    )
    return Rendered(
        "sql-1", 1, "3f9a1", "team", objects, {"train": job("sql-1-train", GPU_SPEC)}, "sql-1", {}
    )


def gpu_node(name: str = "gpu-1", product: str = A40, gpus: int = 1, memory: str = "64Gi") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus), "memory": memory, "cpu": "32"}},
    }


CPU_NODE: dict[str, Any] = {
    "metadata": {"name": "cpu-1"},
    "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}},
}


class Team:
    """A namespace that has all that the run needs; tests take things away."""

    def __init__(self) -> None:
        self.there: dict[str, Any] = {
            "secrets/hub": {"data": {"token": "c2VjcmV0"}},
            "secrets/pull": {"data": {}},
            "persistentvolumeclaims/cache": {
                "metadata": {"name": "cache"},
                "spec": {"storageClassName": "fast"},
                "status": {"phase": "Bound"},
            },
        }
        self.nodes = [CPU_NODE, gpu_node()]
        self.writes: dict[str, Reply] = {}  # end of path, or the pod's name -> another answer than "fine"
        self.forbidden: set[str] = set()

    def __call__(self, asked: Asked) -> Reply:
        *_, plural, name = ["", *asked.path.strip("/").split("/")]
        if asked.method == "GET":
            resource = name if name == "nodes" else plural
            if resource in self.forbidden:
                message = (
                    f'User "bob" cannot get resource "{resource}" in API group "" in the namespace "team"'
                )
                return status(403, "Forbidden", message)
            if name == "nodes":
                return listing("1", *self.nodes)
            found = self.there.get(f"{plural}/{name}")
            return Reply(200, found) if found else status(404, "NotFound", f'{plural} "{name}" not found')
        assert asked.query["dryRun"] == "All", "preflight changes nothing"
        assert asked.query["fieldValidation"] == "Strict"
        named = f"{plural if asked.method == 'PATCH' else name}/{(asked.body or {})['metadata']['name']}"
        return self.writes.get(named, Reply(200, asked.body))


@pytest.fixture
def team(server: ApiServer) -> Team:
    made = Team()
    server.answer = made
    return made


def problems(connect: Connect) -> Failure:
    with pytest.raises(Failure) as caught:
        preflight(connect(), rendered(), SITE)
    assert "nothing was applied" in caught.value.what
    return caught.value


@pytest.mark.usefixtures("team")
def test_complete_cluster_passes_preflight(server: ApiServer, connect: Connect) -> None:
    assert preflight(connect(), rendered(), SITE) == ()
    pods = [a.body for a in server.asked if a.method == "POST" and a.path.endswith("/pods")]
    assert len(pods) == 2
    # The run's own service account is not there yet; a pod that names it would be refused.
    assert all("serviceAccountName" not in (pod or {})["spec"] for pod in pods)


def test_preflight_lists_everything_missing_at_once(team: Team, connect: Connect) -> None:
    team.there = {"secrets/hub": {"data": {"other": ""}}}
    team.nodes = [CPU_NODE]
    failure = problems(connect)
    text = failure.text()
    assert failure.reason is Reason.UNSUPPORTED
    assert "Secret hub has no key token (secrets.hub_token of the site file); it has key other" in text
    assert "Secret pull does not exist" in text
    assert "PersistentVolumeClaim cache does not exist" in text
    assert "node cpu-1: label nvidia.com/gpu.product is not set, wanted NVIDIA-A40" in text


def test_missing_secrets_alone_are_missing_input(team: Team, connect: Connect) -> None:
    del team.there["secrets/hub"]
    failure = problems(connect)
    assert failure.reason is Reason.MISSING_INPUT
    assert failure.problems == (
        "Secret hub does not exist, needed with key token (secrets.hub_token of the site file)",
    )


def test_dry_run_warning_is_a_problem(team: Team, connect: Connect) -> None:
    warning = [("Warning", '299 - "would violate PodSecurity"')]
    team.writes["jobs/sql-1-train"] = Reply(201, {}, headers=warning)
    assert problems(connect).problems == ("Job sql-1-train: would violate PodSecurity",)


def test_shared_problem_is_listed_once_with_its_objects(team: Team, connect: Connect) -> None:
    for name in ("sql-1-train-preflight", "sql-1-conductor-preflight"):
        team.writes[f"pods/{name}"] = status(
            403, "Forbidden", f'pods "{name}" is forbidden: violates PodSecurity: no'
        )
    assert problems(connect).problems == (
        "pods of Job sql-1-train, pods of Job sql-1-conductor: violates PodSecurity: no",
    )


def test_unreadable_object_is_a_note_not_a_problem(team: Team, connect: Connect) -> None:
    team.forbidden = {"secrets", "nodes"}
    notes = preflight(connect(), rendered(), SITE)
    assert len(notes) == 3
    assert "not checked whether Secret hub exists: bob may not get secrets in namespace team" in notes


def test_check_nodes_false_skips_the_node_check(team: Team, connect: Connect) -> None:
    team.forbidden = {"nodes"}
    assert preflight(connect(), rendered(), SITE.model_copy(update={"check_nodes": False})) == ()
    assert len(preflight(connect(), rendered(), SITE)) == 1


@pytest.mark.parametrize("resource", ["roles", "rolebindings"])
def test_rolebinding_to_the_runs_own_role_passes_dry_run(team: Team, connect: Connect, resource: str) -> None:
    message = f'{resource}.rbac.authorization.k8s.io "sql-1" not found'
    team.writes["rolebindings/sql-1"] = status(404, "NotFound", message)
    assert preflight(connect(), rendered(), SITE) == ()


@pytest.mark.parametrize(("limited", "passes"), [("2", True), ("500m", False)])
def test_quota_used_by_others_is_a_note(team: Team, connect: Connect, limited: str, passes: bool) -> None:
    message = (
        f'pods "x" is forbidden: exceeded quota: q, requested: cpu=1, used: cpu=2, limited: cpu={limited}'
    )
    team.writes["pods/sql-1-train-preflight"] = status(403, "Forbidden", message)
    if passes:
        assert "will wait until the quota has room" in preflight(connect(), rendered(), SITE)[0]
    else:
        assert "exceeded quota: q" in problems(connect).text()


def test_existing_objects_of_the_run_pass_preflight(team: Team, connect: Connect) -> None:
    team.writes["jobs/sql-1-train"] = status(409, "AlreadyExists", "exists")
    assert preflight(connect(), rendered(), SITE) == ()


def test_claim_with_an_unknown_storage_class_is_a_problem(team: Team, connect: Connect) -> None:
    team.there["persistentvolumeclaims/cache"]["status"]["phase"] = "Pending"
    assert problems(connect).problems == ("PersistentVolumeClaim cache is Pending: no StorageClass fast",)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (gpu_node(product="NVIDIA-A40-SHARED"), "is NVIDIA-A40-SHARED, wanted NVIDIA-A40"),
        (gpu_node(gpus=0), "nvidia.com/gpu: 1 requested, 0 allocatable"),
        (gpu_node(memory="32Gi"), "memory: 40Gi requested, 32Gi allocatable"),
    ],
)
def test_node_mismatch_names_the_resource_or_label(node: dict[str, Any], why: str) -> None:
    assert why in (why_nowhere(GPU_SPEC, [node]) or "")
    assert why_nowhere(GPU_SPEC, [node, gpu_node()]) is None


def test_untolerated_taint_is_named() -> None:
    intolerant = copy.deepcopy(GPU_SPEC) | {"tolerations": []}
    assert why_nowhere(intolerant, [gpu_node()]) == "node gpu-1: taint nvidia.com/gpu is not tolerated"
    assert why_nowhere(GPU_SPEC, []) == "the cluster has no nodes"


def test_quantities_parse() -> None:
    texts = ("500m", "4", "16Gi", "1e3", "2k")
    assert [float(quantity(text)) for text in texts] == [0.5, 4, 16 * 1024**3, 1000, 2000]


def test_every_kind_of_secret_reference_is_found() -> None:
    spec = {
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"secret": {"secretName": "a", "items": [{"key": "k"}]}},
            {"secret": {"secretName": "not-needed", "optional": True}},
            {"projected": {"sources": [{"secret": {"name": "b"}}, {"configMap": {"name": "c"}}]}},
        ],
        "containers": [
            {
                "env": [
                    {"valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}},
                    {"name": "X", "value": "1"},
                ],
                "envFrom": [{"secretRef": {"name": "e"}}],
            }
        ],
    }
    found = {(kind, name, key) for kind, name, key in pod_references.of_pod(spec)}
    secrets = {("a", "k"), ("b", None), ("d", "k"), ("e", None), ("pull", None)}
    assert found == {("Secret", name, key) for name, key in secrets} | {("ConfigMap", "c", None)}
