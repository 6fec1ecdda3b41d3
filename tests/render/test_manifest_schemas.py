"""Every object, stage Job and pod passes the strict schemas of each supported Kubernetes version."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jsonschema
import pytest
from kubernetes_validate import utils as bundled
from referencing import Registry, Resource
from render_scenarios import SCENARIOS, everything, rendered

VERSIONS = [version for version in bundled.all_versions() if tuple(map(int, version.split("."))) >= (1, 31)]


@cache
def validator(version: str, kind: str, group: str) -> Any:
    """The bundled strict schema; its own program stops at the first error."""
    directory = f"kubernetes-json-schema/v{version}-local-strict"
    schema = bundled.schema_contents(f"{directory}/{kind.lower()}-{group}.json", version)
    registry: Any = Registry()
    for contents in (schema, definitions(version)):
        registry = Resource.from_contents(contents) @ registry
    return jsonschema.validators.Draft202012Validator(schema, registry=registry)


@cache
def definitions(version: str) -> Any:
    return bundled.schema_contents(
        f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version
    )


def errors(version: str, item: dict[str, Any]) -> list[str]:
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", item["apiVersion"])
    found = validator(version, item["kind"], group).iter_errors(item)
    return [f"{item['kind']} {item['metadata']['name']}: {e.json_path}: {e.message}" for e in found]


def test_newest_schemas_are_bundled() -> None:
    assert VERSIONS[0].startswith("1.31")
    assert len(VERSIONS) >= 7


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_pass_every_schema(version: str) -> None:
    shapes: dict[str, dict[str, Any]] = {}
    for name in SCENARIOS:
        for item in everything(rendered(name)):
            # Stages of one kind and shape differ in names only: one of each is enough.
            shape = re.sub(r"[0-9a-f]{5,}", "", str(item))
            shapes.setdefault(shape, item)
    assert [line for item in shapes.values() for line in errors(version, item)] == []


def test_schema_check_finds_every_error() -> None:
    job = rendered("demo").stage_jobs["prepare"]
    job["spec"]["backofLimit"] = 1
    job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = []
    assert len(errors(VERSIONS[-1], job)) == 2
