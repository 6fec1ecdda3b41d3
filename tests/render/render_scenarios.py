"""Plans and sites of the golden renderings; no network, clock or cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import yaml

from launcher.manifests.object_yaml import object_yaml
from launcher.manifests.render import Rendered, render
from launcher.resolve.resolver import resolve
from launcher.spec.experiment import Experiment
from launcher.spec.loading import load, validate
from launcher.spec.lock import Lock, LockedModel
from launcher.spec.plan import Plan
from launcher.spec.planner import plan
from launcher.spec.site import Site
from launcher.spec.stages import HubModel

HUB = LockedModel(source=HubModel(repository="codellama/CodeLlama-34b-hf", revision="b" * 40))
TRAINING = {"steps": 400, "batch_rows": 128, "quantization": "int8", "recompute": True}


def image(name: str) -> str:
    return f"registry.example/tuneyard/{name}@sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def make_site(**changes: Any) -> Site:
    """A namespace with keys for its store; `changes` at the top level."""
    document: dict[str, Any] = {
        "namespace": "tuning",
        "store": {"outside": "/data/store", "inside": "s3://runs/tuneyard?region=eu-west-1"},
        "images": {name: image(name) for name in ("trainer", "worker", "conductor")},
        "secrets": {
            "store_access_key": {"secret": "store", "key": "access"},
            "store_secret_key": {"secret": "store", "key": "secret"},
            "hub_token": {"secret": "hub", "key": "token"},
            "openai_api_key": {"secret": "openai", "key": "api-key"},
        },
    }
    return Site.model_validate({**document, **changes})


#: A site with every field set.
FULL_SITE = make_site(
    service_account={"create": False, "name": "conductor", "create_role": False, "stages": "store-user"},
    pull_secrets=["registry", "mirror"],
    queue="gpus",
    certificate_authority_config_map="our-ca",
    cache_claim="model-cache",
    start_timeout_s=120,
)
#: As little as possible: pods have an identity that the store knows.
BARE_SITE = make_site(secrets={})


def experiment(contender: dict[str, Any], **changes: Any) -> Experiment:
    return validate({"name": "sql", "task": "sql", "contenders": [contender], **changes}, where="test")


def on_a40(count: int, nodes: int = 1, **training: Any) -> Plan:
    """Code Llama 34B with LoRA on `nodes` machines of `count` A40."""
    contender = {
        "name": "codellama34b",
        "kind": "lora",
        "model": "codellama-34b",
        "prompt": "plain",
        "hardware": {"device": "NVIDIA-A40", "count": count, "nodes": nodes, "threads": 8, "memory_gib": 96},
        "training": {**TRAINING, **training},
    }
    return plan(experiment(contender), Lock(models={"codellama-34b": HUB}))


def hosted_only() -> Plan:
    contender = {"name": "gpt35", "kind": "hosted", "model": "gpt-3.5-turbo-0613", "epochs": 3}
    return plan(experiment(contender), Lock())


def built_in(profile: str) -> Plan:
    made = resolve(load("sql", profile=profile))
    return plan(made.experiment, made.lock)


def without_trainer() -> Site:
    return make_site(images={name: image(name) for name in ("worker", "conductor")})


SCENARIOS: dict[str, tuple[Callable[[], Plan], Site]] = {
    "one-a40": (lambda: on_a40(1), make_site()),
    "four-a40": (lambda: on_a40(4, zero_stage=3, quantization="none"), FULL_SITE),
    "two-nodes": (lambda: on_a40(2, nodes=2), make_site()),
    "hosted-only": (hosted_only, without_trainer()),
    "demo": (lambda: built_in("demo"), BARE_SITE),
}


def rendered(name: str, **options: Any) -> Rendered:
    make_plan, site = SCENARIOS[name]
    return render(make_plan(), site, **options)


def golden(one: Rendered) -> str:
    """A rendering for people to compare: the objects, and every stage's Job written out.

    In the ConfigMap, texts are replaced by their digests, except the request.
    """
    documents = []
    for item in one.objects:
        if item["kind"] == "ConfigMap":
            data = {
                key: text if key == "request.json" else digest(text) for key, text in item["data"].items()
            }
            item = {**item, "data": data}
        documents.append(item)
    documents += one.stage_jobs.values()
    return "".join(f"---\n{object_yaml(item).decode()}" for item in documents)


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def pod_templates(one: Rendered) -> dict[str, dict[str, Any]]:
    """Every pod template of a run: `conductor`, and the stages by name."""
    conductor = next(item for item in one.objects if item["kind"] == "Job")
    templates = {"conductor": conductor["spec"]["template"]}
    return templates | {name: job["spec"]["template"] for name, job in one.stage_jobs.items()}


def everything(one: Rendered) -> list[dict[str, Any]]:
    """All objects, all stage Jobs, and a Pod of each Job: what a server is asked to accept."""
    jobs = [item for item in one.objects if item["kind"] == "Job"] + list(one.stage_jobs.values())
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": job["metadata"]["name"],
                "namespace": one.namespace,
                **job["spec"]["template"]["metadata"],
            },
            "spec": job["spec"]["template"]["spec"],
        }
        for job in jobs
    ]
    return [*one.objects, *one.stage_jobs.values(), *pods]


def parse_all(text: str | bytes) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(text) if item]
