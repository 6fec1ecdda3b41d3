"""The chart's values: the schema is closed at every level, and unset values leave no trace in the objects."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from render_scenarios import SCENARIOS, hosted_only, make_site, on_a40, parse_all, pod_templates, rendered

from launcher.manifests import helm
from launcher.manifests.chart_values import Values, chart_directory, schema
from launcher.manifests.render import render
from launcher.outcome import Failure


def full_values() -> dict[str, Any]:
    """Values in which every key is given somewhere."""
    values = copy.deepcopy(rendered("four-a40").values)
    key = {"secret": "s", "key": "k"}
    values["stages"][0] |= {"hubToken": dict(key), "openaiApiKey": dict(key)}
    return values


def by_helm(values: dict[str, Any]) -> list[dict[str, Any]]:
    return parse_all(helm.template(chart_directory(), release="r", namespace="tuning", values=values))


def mappings(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all mappings; of a list only the first item."""
    if isinstance(node, dict):
        yield path
        for key, value in node.items():
            yield from mappings(value, (*path, key))
    elif isinstance(node, list) and node:
        yield from mappings(node[0], (*path, 0))


LEVELS = list(mappings(full_values()))


def at(node: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        node = node[step]
    return node


def test_every_level_of_the_values_is_tested() -> None:
    closed = [schema(), *schema()["definitions"].values()]
    assert all(node["additionalProperties"] is False for node in closed)
    assert len({tuple(step for step in path if isinstance(step, str)) for path in LEVELS}) >= len(closed)


@pytest.mark.parametrize("path", LEVELS, ids=lambda path: ".".join(map(str, path)) or "top")
def test_misspelt_key_is_rejected_at_every_level(path: tuple[str | int, ...]) -> None:
    values = full_values()
    at(values, path)["mispelt"] = 1
    with pytest.raises(Failure, match="cannot render") as caught:
        by_helm(values)
    assert "mispelt" in str(caught.value.problems)
    with pytest.raises(ValidationError, match="mispelt"):
        Values.model_validate_json(json.dumps(values))


#: What Kubernetes' own schemas let pass, or find too late.
WRONG = {
    "a quantity": ("stages.0.memoryGib", "16GiB"),
    "no memory": ("stages.0.memoryGib", 0),
    "half a GiB": ("stages.0.scratchGib", 0.5),
    "a name with capitals": ("stages.0.name", "Train"),
    "a name with a dot": ("run.id", "sql.1"),
    "a name that ends with a dash": ("queue", "gpus-"),
    "a name that is too long": ("run.id", "a" * 26),
    "an image by tag": ("stages.0.image", "registry.example/trainer:latest"),
    "a short digest": ("conductor.image", "registry.example/c@sha256:abc"),
    "an unknown kind": ("stages.0.kind", "training"),
    "a store with a password": ("store.address", "s3://key:word@bucket"),
    "a directory for a store": ("store.address", "file:///data"),
    "a key with a slash": ("store.credentials.accessKey.key", "../token"),
    "a secret that is no name": ("store.credentials.accessKey.secret", "Store_Keys"),
    "exit code 0": ("conductor.closingExitCodes.0", 0),
    "no stage": ("stages", []),
    "a manifest hash of six": ("run.manifest", "abcdef"),
    "a plan that is no document": ("plan", "plan.json"),
    "truth as text": ("serviceAccount.create", "false"),
    "a number as text": ("run.attempt", "1"),
    "nothing": ("run.attempt", None),
}


@pytest.mark.parametrize("name", WRONG)
def test_schema_rejects_values_that_kubernetes_accepts_by_mistake(name: str) -> None:
    path, value = WRONG[name]
    steps = [int(step) if step.isdigit() else step for step in path.split(".")]
    values = full_values()
    at(values, tuple(steps[:-1]))[steps[-1]] = value
    with pytest.raises(Failure, match="cannot render"):
        by_helm(values)
    with pytest.raises(ValidationError):
        Values.model_validate_json(json.dumps(values))


def test_gpu_needs_a_product_and_existing_account_a_name() -> None:
    values = full_values()
    del values["stages"][2]["device"]
    del values["serviceAccount"]["name"]
    assert values["stages"][2]["gpus"] == 4
    with pytest.raises(Failure, match="cannot render") as caught:
        by_helm(values)
    assert "'device'" in str(caught.value.problems)
    assert "'name'" in str(caught.value.problems)


@pytest.mark.parametrize("name", SCENARIOS)
def test_schema_is_valid_and_accepts_every_scenario(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    jsonschema.Draft7Validator(schema()).validate(rendered(name).values)


def test_restart_policy_and_ttl_are_not_values() -> None:
    text = json.dumps(schema()).lower()
    for word in ("restartpolicy", "ttl", "suspend", "backofflimit", "command"):
        assert word not in text


#: A field of the site -> texts that are in the objects exactly if it is set.
FACTS: dict[str, tuple[Any, list[str]]] = {
    "queue": ("gpus", ["kueue.x-k8s.io/queue-name"]),
    "pull_secrets": (["registry"], ["imagePullSecrets", "registry"]),
    "cache_claim": ("models", ["persistentVolumeClaim", "/cache"]),
    "certificate_authority_config_map": (
        "our-ca",
        ["/etc/tuneyard-ca/ca.crt", "SSL_CERT_FILE", "AWS_CA_BUNDLE"],
    ),
}


@pytest.mark.parametrize("fact", FACTS)
def test_optional_values_appear_only_when_set(fact: str) -> None:
    value, words = FACTS[fact]
    for site, there in ((make_site(**{fact: value}), True), (make_site(), False)):
        text = json.dumps(render(on_a40(1), site).stage_jobs).replace("registry.example", "")
        text = text.replace("/scratch/cache", "")
        for word in words:
            assert (word in text) is there, word


def test_service_account_is_created_unless_named() -> None:
    def kinds(account: dict[str, Any]) -> tuple[list[str], str]:
        one = render(on_a40(1), make_site(service_account=account))
        return [item["kind"] for item in one.objects], pod_templates(one)["conductor"]["spec"][
            "serviceAccountName"
        ]

    own = ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Job"]
    made, name = kinds({})
    assert made == own
    assert name.startswith("sql-")
    assert kinds({"create": False, "name": "theirs"}) == (own[1:], "theirs")
    assert kinds({"create": False, "name": "theirs", "create_role": False}) == (own[3:], "theirs")


def test_stage_pods_have_a_service_account_only_if_the_site_names_one() -> None:
    plain = render(hosted_only(), make_site())
    named = render(hosted_only(), make_site(service_account={"stages": "store-user"}))
    for one, expected in ((plain, None), (named, "store-user")):
        for job in one.stage_jobs.values():
            spec = job["spec"]["template"]["spec"]
            assert spec.get("serviceAccountName") == expected
            assert spec["automountServiceAccountToken"] is False


def test_role_has_only_the_documented_permissions() -> None:
    role = next(item for item in rendered("demo").objects if item["kind"] == "Role")
    rights = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
    assert rights == {
        "jobs": ["get", "list", "watch", "create", "delete"],
        "pods": ["list", "watch"],
        "pods/log": ["get"],
        "events": ["list"],
    }
