"""The Secrets, ConfigMaps and volume claims that a pod refers to, by name and key. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """An object that must exist before the pod can start; a `key` of None accepts any content."""

    kind: str
    name: str
    key: str | None


def of_pod(pod_spec: dict[str, Any]) -> set[Reference]:
    """Everything that the pod cannot start without; optional references are left out."""
    found = {Reference("Secret", secret["name"], None) for secret in pod_spec.get("imagePullSecrets") or ()}
    for volume in pod_spec.get("volumes") or ():
        found.update(_of_volume(volume))
    for container in (*(pod_spec.get("initContainers") or ()), *(pod_spec.get("containers") or ())):
        found.update(_of_environment(container))
    return found


def _of_volume(volume: dict[str, Any]) -> Iterator[Reference]:
    if claim := volume.get("persistentVolumeClaim"):
        yield Reference("PersistentVolumeClaim", claim["claimName"], None)
    for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if secret := source.get("secret"):
            yield from _keys("Secret", secret.get("secretName") or secret["name"], secret)
        if config_map := source.get("configMap"):
            yield from _keys("ConfigMap", config_map["name"], config_map)


def _keys(kind: str, name: str, source: dict[str, Any]) -> Iterator[Reference]:
    if not source.get("optional"):
        items = source.get("items") or ()
        yield from (Reference(kind, name, item["key"]) for item in items)
        if not items:
            yield Reference(kind, name, None)


def _of_environment(container: dict[str, Any]) -> Iterator[Reference]:
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
            if (wanted := source.get(field)) and not wanted.get("optional"):
                yield Reference(kind, wanted["name"], wanted["key"])
    for source in container.get("envFrom") or ():
        for kind, field in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
            if (wanted := source.get(field)) and not wanted.get("optional"):
                yield Reference(kind, wanted["name"], None)
