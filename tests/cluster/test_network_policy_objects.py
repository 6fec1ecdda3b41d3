"""A real API server accepts the NetworkPolicies of platform and run, from a user with the submitter's Role."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.manifests.render import Rendered, render
from launcher.resolve.resolver import resolve
from launcher.spec.loading import load
from launcher.spec.planner import plan
from launcher.spec.site import Site
from launcher.targets.cluster.client import Cluster as Client

from .conftest import Cluster
from .pods import Namespace
from .test_client import restricted_client

pytestmark = pytest.mark.cluster
PLATFORM = Path(__file__).parents[2] / "k8s" / "platform"


def documents(name: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all((PLATFORM / name).read_text()) if item]


def two_nodes(namespace: str) -> Rendered:
    digest = hashlib.sha256(b"").hexdigest()
    site = Site.model_validate(
        {
            "namespace": namespace,
            "store": {"outside": "/data", "inside": "s3://runs/tuneyard"},
            "images": {
                n: f"registry.example/{n}@sha256:{digest}" for n in ("trainer", "worker", "conductor")
            },
        }
    )
    made = resolve(load("sql", profile="smoke", sets=("contenders[lora].hardware.nodes=2",)))
    return render(plan(made.experiment, made.lock), site)


def test_server_accepts_the_policies_of_the_platform(cluster: Cluster, namespace: Namespace) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}/networkpolicies"
    for policy in documents("network-policy.yaml"):
        stored = cluster.api.apply(f"{path}/{policy['metadata']['name']}", policy)
        assert stored["spec"]["podSelector"] == policy["spec"]["podSelector"]
        for rule, wanted in zip(
            stored["spec"].get("egress", []), policy["spec"].get("egress", []), strict=True
        ):
            assert rule.get("to") == wanted.get("to")


def test_submitters_role_suffices_for_a_run_on_several_nodes(
    cluster: Cluster, namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    (role,) = documents("submitter.yaml")
    client = Client.connect(namespace.name)
    bob = restricted_client(client, tmp_path, monkeypatch, namespace, *role["rules"])
    run = two_nodes(namespace.name)
    applied = [bob.apply(manifest).object for manifest in run.objects]
    (policy,) = [item for item in applied if item["kind"] == "NetworkPolicy"]
    selected = policy["spec"]["podSelector"]["matchLabels"]
    labels = run.stage_jobs["train-lora-s1"]["spec"]["template"]["metadata"]["labels"]
    assert selected.items() <= labels.items()
    assert {"tuneyard.dev/run", "tuneyard.dev/stage"} < set(selected)
    bob.delete("NetworkPolicy", policy["metadata"]["name"])
