"""Each pod of a run reaches what its stage needs and nothing else, by the rendered NetworkPolicies.

No enforcer runs here: the policies are evaluated as Kubernetes defines them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import Launcher
from network_policies import Cluster, Endpoint, selects

CHECKOUT = Path(__file__).parents[2]
SECURITY = CHECKOUT / "docs" / "security.md"
PLATFORM = CHECKOUT / "k8s" / "platform" / "network-policy.yaml"
OUTSIDE_STORE = CHECKOUT / "k8s" / "outside-store" / "kustomization.yaml"
RUNS = "tuneyard"

#: Pod -> the destinations of the table in docs/security.md that it may reach.
BASE = {"DNS", "store"}
INTERNET = {"model hub", "hosted API", "other HTTPS"}
ALLOWED: dict[str, set[str]] = {
    "conductor": BASE | {"API server"},
    "fetch from a hub or package index": BASE | INTERNET,
    "fetch of random weights": BASE,
    "prepare": BASE,
    "train on one node": BASE,
    "train on several nodes": BASE | {"own trainers"},
    "predict of an open model": BASE,
    "tune, hosted": BASE | INTERNET | {"rehearsal server"},
    "predict, hosted": BASE | INTERNET | {"rehearsal server"},
    "tune, rehearsed": BASE,
    "predict, rehearsed": BASE,
    "score": BASE,
    "report": BASE,
    "pod without labels": set(),
}
STAGES = {
    "fetch from a hub or package index": "fetch-wide",
    "fetch of random weights": "fetch-untuned",
    "prepare": "prepare",
    "train on one node": "train-narrow-s1",
    "train on several nodes": "train-wide-s1",
    "predict of an open model": "predict-wide-s1",
    "tune, hosted": "tune-hosted-s1",
    "predict, hosted": "predict-hosted-s1",
    "tune, rehearsed": "tune-rehearsed-s1",
    "predict, rehearsed": "predict-rehearsed-s1",
    "score": "score-hosted-s1",
    "report": "report",
}
DESTINATIONS = (
    "DNS",
    "store",
    "model hub",
    "hosted API",
    "rehearsal server",
    "API server",
    "own trainers",
    "other trainers",
    "metadata service",
    "other HTTPS",
    "anything else",
)

NAMESPACES = {
    RUNS: {"kubernetes.io/metadata.name": RUNS},
    "kube-system": {"kubernetes.io/metadata.name": "kube-system"},
    "minio": {"kubernetes.io/metadata.name": "minio", "tuneyard.dev/store": "true"},
    "rehearsal": {"kubernetes.io/metadata.name": "rehearsal", "tuneyard.dev/rehearsal": "true"},
    "other": {"kubernetes.io/metadata.name": "other"},
}


def contender(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "lora",
        "model": "random-llama",
        "hardware": {"device": "cpu", "threads": 1, "memory_gib": 2},
        "generation": {"batch_rows": 4, "max_new_tokens": 8, "dtype": "float32"},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "training": {
            "steps": 6,
            "batch_rows": 4,
            "micro_batch_tokens": 2048,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "max_length_tokens": 2048,
            "dtype": "float32",
        },
        **changes,
    }


def hosted(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "hosted",
        "model": "gpt-3.5-turbo-0613",
        "epochs": 3,
        "batch_rows": 4,
        **changes,
    }


def experiment(name: str) -> dict[str, Any]:
    untuned = contender("untuned", kind="prompted")
    del untuned["lora"], untuned["training"]
    rehearsal = {
        "stand_in": "random-llama",
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "learning_rate": 1e-3,
        "dtype": "float32",
        "answer_rows": 4,
        "threads": 1,
        "memory_gib": 2,
    }
    wide = {"device": "NVIDIA-A40", "count": 2, "nodes": 2, "threads": 8, "memory_gib": 96}
    return {
        "format": 1,
        "name": name,
        "task": "sql",
        "baseline": "untuned",
        "data": {"source": "sample", "train_rows": 24, "validation_rows": 4, "test_rows": 8},
        "contenders": [
            untuned,
            contender("narrow"),
            contender("wide", model="llama2-7b", prompt="plain", hardware=wide),
            # With an address of its own, so that no date on which a service closes ends this test.
            hosted("hosted", base_url="https://api.openai.com/v1"),
            hosted("rehearsed", provider="rehearsal", rehearsal=rehearsal),
        ],
    }


SITE = {
    "format": 1,
    "namespace": RUNS,
    "store": {"outside": "/data/store", "inside": "s3://runs/tuneyard?region=eu-west-1"},
    "images": {n: f"registry.example/{n}@sha256:{'a' * 64}" for n in ("trainer", "worker", "conductor")},
    "secrets": {
        "store_access_key": {"secret": "store", "key": "access"},
        "store_secret_key": {"secret": "store", "key": "secret"},
        "hub_token": {"secret": "hub", "key": "token"},
        "openai_api_key": {"secret": "openai", "key": "api-key"},
    },
}


def rendered(launcher: Launcher, directory: Path, name: str, *options: str) -> list[dict[str, Any]]:
    """What `launcher render` prints: objects, with the Jobs of the ConfigMap written out."""
    random = {"kind": "random", "layers": 2, "hidden_size": 64, "seed": 0}
    hub = {"kind": "hub", "repository": "meta-llama/Llama-2-7b-hf", "revision": "b" * 40}
    lock = {"format": 1, "models": {"random-llama": {"source": random}, "llama2-7b": {"source": hub}}}
    (directory / "site.yaml").write_text(yaml.safe_dump(SITE))
    (directory / "lock.json").write_text(json.dumps(lock))
    (directory / f"{name}.yaml").write_text(yaml.safe_dump(experiment(name)))
    command = ("render", f"{name}.yaml", "--site", "site.yaml", "--lock", "lock.json", *options)
    done = launcher(*command, cwd=directory)
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    data = next(item["data"] for item in objects if item["kind"] == "ConfigMap")
    return objects + [json.loads(text) for key, text in data.items() if key.startswith("job-")]


def pod_labels(objects: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Labels of the run's pods, by stage; the conductor's under `conductor`."""
    found = {}
    for item in objects:
        if item["kind"] == "Job":
            labels = item["spec"]["template"]["metadata"]["labels"]
            found[labels.get("tuneyard.dev/stage", "conductor")] = labels
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("network")
    return Scene(directory)


class Scene:
    """Two runs in one namespace, and a second attempt at the first."""

    def __init__(self, directory: Path) -> None:
        launcher = Launcher(directory)
        self.run = rendered(launcher, directory, "mine")
        self.again = rendered(launcher, directory, "mine", "--attempt", "2")
        changed = ("--set", "contenders[wide].training.steps=7")
        self.theirs = rendered(launcher, directory, "theirs", *changed)
        self.pods = pod_labels(self.run)
        policies = [item for item in yaml.safe_load_all(PLATFORM.read_text()) if item]
        for item in policies:
            item["metadata"]["namespace"] = RUNS  # as k8s/platform/kustomization.yaml sets it
        of_runs = [i for i in (*self.run, *self.again, *self.theirs) if i["kind"] == "NetworkPolicy"]
        self.cluster = Cluster(NAMESPACES, policies + of_runs)

    def pod(self, row: str) -> Endpoint:
        if row == "pod without labels":
            return Endpoint("10.1.0.9", RUNS, {})
        return self.stage("conductor" if row == "conductor" else STAGES[row])

    def stage(self, name: str, objects: list[dict[str, Any]] | None = None) -> Endpoint:
        return Endpoint("10.1.0.7", RUNS, pod_labels(objects or self.run)[name])

    def reaches(self, source: Endpoint, destination: str) -> bool:
        return any(self.cluster.may_connect(source, *probe) for probe in self.probes(destination))

    @cache  # noqa: B019  # one scene per module
    def probes(self, destination: str) -> list[tuple[Endpoint, int, str]]:
        """Connections that stand for a destination; it is reachable if any of them is."""
        public = Endpoint("203.0.113.80"), Endpoint("2001:db8::80")
        trainers = [self.stage(n, o) for o in (self.again, self.theirs) for n in ("train-wide-s1",)]
        trainers.append(self.stage("train-narrow-s1"))
        strangers = [
            Endpoint("10.1.0.8", RUNS, {}),
            Endpoint("10.2.0.8", "other", {"app.kubernetes.io/name": "tuneyard"}),
            Endpoint("10.2.0.9", "kube-system", {"k8s-app": "metrics-server"}),
            Endpoint("100.64.0.9"),
            *(self.stage(n) for n in ("prepare", "score-hosted-s1", "predict-wide-s1", "conductor")),
        ]
        dns = Endpoint("10.2.0.1", "kube-system", {"k8s-app": "kube-dns"})
        return {
            "DNS": [(dns, 53, "UDP"), (dns, 53, "TCP")],
            "store": [(Endpoint("10.2.0.2", "minio", {"app": "minio"}), 9000, "TCP")],
            "model hub": [(public[0], 443, "TCP")],
            "hosted API": [(public[1], 443, "TCP")],
            "rehearsal server": [(Endpoint("10.2.0.3", "rehearsal", {}), 8000, "TCP")],
            "API server": [(Endpoint("10.0.0.1"), 443, "TCP"), (Endpoint("192.168.1.5"), 6443, "TCP")],
            "own trainers": [(self.stage("train-wide-s1"), port, "TCP") for port in (29500, 29501, 40000)],
            "other trainers": [(t, port, "TCP") for t in trainers for port in (443, 6443, 29500, 40000)],
            "metadata service": [
                (Endpoint(ip), port, "TCP")
                for ip in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254")
                for port in (80, 443, 6443)
            ],
            "other HTTPS": [(Endpoint("198.51.100.7"), 443, "TCP")],
            "anything else": [
                *(
                    (Endpoint(ip), port, "TCP")
                    for ip in ("203.0.113.80", "2001:db8::80")
                    for port in (22, 80)
                ),
                (Endpoint("203.0.113.80"), 443, "UDP"),
                (dns, 9153, "TCP"),
                *((s, port, "TCP") for s in strangers for port in (53, 443, 8000, 9000, 10250)),
            ],
        }[destination]


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("row", ALLOWED)
def test_pod_reaches_what_its_stage_needs_and_nothing_else(scene: Scene, row: str, destination: str) -> None:
    if destination == "anything else" and row == "conductor":
        # Until a platform team narrows it, any private address at 443 may be the API server.
        probes = [p for p in scene.probes(destination) if p[1] != 443 or p[0].namespace in ("", RUNS)]
        assert not any(scene.cluster.may_connect(scene.pod(row), *probe) for probe in probes)
        return
    assert scene.reaches(scene.pod(row), destination) == (destination in ALLOWED[row])


@pytest.mark.parametrize("row", ALLOWED)
def test_pods_of_a_run_accept_no_connection_from_outside_it(scene: Scene, row: str) -> None:
    strangers = [
        *(
            Endpoint("10.2.0.8", namespace, {"app.kubernetes.io/name": "tuneyard"})
            for namespace in NAMESPACES
        ),
        Endpoint("10.1.0.8", RUNS, {}),
        Endpoint("203.0.113.80"),
        scene.stage("train-wide-s1", scene.theirs),
        scene.stage("train-wide-s1", scene.again),
    ]
    accepting = [
        s for s in strangers for port in (443, 29500) if scene.cluster.may_connect(s, scene.pod(row), port)
    ]
    assert accepting == []


def test_table_of_the_docs_is_the_tested_one() -> None:
    lines = [line for line in SECURITY.read_text().splitlines() if line.startswith("|")]
    start = next(n for n, line in enumerate(lines) if line.startswith("| pod |"))
    heads = cells(lines[start])[1:]
    assert tuple(heads) == DESTINATIONS
    documented = {}
    for line in lines[start + 2 :]:
        row, *marks = cells(line)
        if row not in ALLOWED:
            break
        assert set(marks) <= {"yes", ""}
        documented[row] = {head for head, mark in zip(heads, marks, strict=True) if mark}
    assert documented == ALLOWED


def test_store_outside_the_cluster_is_one_patch(scene: Scene) -> None:
    patch = yaml.safe_load(OUTSIDE_STORE.read_text())["patches"][0]
    (operation,) = yaml.safe_load(patch["patch"])
    assert (operation["op"], operation["path"]) == ("replace", "/spec/egress")
    policies = json.loads(json.dumps(scene.cluster.policies))
    (store,) = [p for p in policies if p["metadata"]["name"] == patch["target"]["name"]]
    store["spec"]["egress"] = operation["value"]
    cluster = Cluster(NAMESPACES, policies)
    source = scene.pod("score")
    assert cluster.may_connect(source, Endpoint("192.0.2.10"), 443)
    assert not cluster.may_connect(source, Endpoint("192.0.2.11"), 443)
    assert not cluster.may_connect(source, Endpoint("10.2.0.2", "minio", {"app": "minio"}), 9000)


def test_overlay_cannot_give_a_stage_access_to_the_internet(tmp_path: Path) -> None:
    overlay = {"kinds": {"score": {"metadata": {"labels": {"tuneyard.dev/egress": "downloads"}}}}}
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    with pytest.raises(AssertionError, match="reserved for the run"):
        rendered(Launcher(tmp_path), tmp_path, "mine", "--overlay", "overlay.yaml")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


#: policy selector, labels, selected: as the API server's documentation gives them.
SELECTORS: list[tuple[dict[str, Any], dict[str, str], bool]] = [
    ({}, {}, True),
    ({"matchLabels": {"a": "1"}}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"b": ""}, False),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"b": ""}, True),
]


@pytest.mark.parametrize(("selector", "labels", "selected"), SELECTORS)
def test_evaluator_reads_selectors_as_kubernetes_does(
    selector: dict[str, Any], labels: dict[str, str], selected: bool
) -> None:
    assert selects(selector, labels) is selected


def test_evaluator_joins_rules_and_honours_exceptions() -> None:
    def policy(spec: dict[str, Any]) -> dict[str, Any]:
        return {
            "metadata": {"namespace": RUNS},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], **spec},
        }

    source = Endpoint("10.1.0.1", RUNS, {"a": "1"})
    one, two = Endpoint("203.0.113.1"), Endpoint("203.0.113.2")
    block = {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.2/32"]}}
    assert Cluster(NAMESPACES, []).may_connect(source, two, 443)
    assert not Cluster(NAMESPACES, [policy({})]).may_connect(source, one, 443)
    excepted = policy({"egress": [{"to": [block]}]})
    assert Cluster(NAMESPACES, [policy({}), excepted]).may_connect(source, one, 443)
    assert not Cluster(NAMESPACES, [policy({}), excepted]).may_connect(source, two, 443)
    everything = policy({"egress": [{}]})
    assert Cluster(NAMESPACES, [excepted, everything]).may_connect(source, two, 443)
