"""Whether any empty node could run a pod, from the nodes' allocatable resources, labels and taints. Pure.

Not covered: what other pods use (the scheduler waits for that), affinities, volumes.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from launcher.system.text import listed

GPU = "nvidia.com/gpu"
_NAMED_NODES = 6


def quantity(text: str | int) -> Decimal:
    """The number of a Kubernetes quantity: "500m", "16Gi", "4"."""
    return Decimal(parse_quantity(text))


def requests_of(pod_spec: dict[str, Any]) -> dict[str, Decimal]:
    """What the pod requests, by resource, summed over its containers; a limit counts as a request."""
    total: dict[str, Decimal] = {}
    for container in pod_spec.get("containers") or ():
        resources = container.get("resources") or {}
        requested = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, amount in requested.items():
            total[name] = total.get(name, Decimal(0)) + quantity(amount)
    return total


def why_nowhere(pod_spec: dict[str, Any], nodes: Iterable[dict[str, Any]]) -> str | None:
    """None if some node could run the pod; otherwise the nodes and what each lacks."""
    requested = requests_of(pod_spec)
    lacking: dict[str, list[str]] = {}
    for node in nodes:
        why = _why_not(pod_spec, requested, node)
        if why is None:
            return None
        lacking.setdefault(why, []).append(node["metadata"]["name"])
    if not lacking:
        return "the cluster has no nodes"
    return "; ".join(f"{_names(names)}: {why}" for why, names in lacking.items())


def _why_not(pod_spec: dict[str, Any], requested: dict[str, Decimal], node: dict[str, Any]) -> str | None:
    labels = node["metadata"].get("labels") or {}
    for name, wanted in (pod_spec.get("nodeSelector") or {}).items():
        if labels.get(name) != wanted:
            has = f"is {labels[name]}" if name in labels else "is not set"
            return f"label {name} {has}, wanted {wanted}"
    spec, status = node.get("spec") or {}, node.get("status") or {}
    for taint in spec.get("taints") or ():
        tolerated = any(_tolerates(t, taint) for t in pod_spec.get("tolerations") or ())
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerated:
            return f"taint {taint['key']} is not tolerated"
    allocatable = status.get("allocatable") or {}
    short = []
    for name, amount in requested.items():
        offered = allocatable.get(name, "0")
        if amount > quantity(offered):
            short.append(f"{name}: {_readable(name, amount)} requested, {offered} allocatable")
    return ", ".join(short) or None


def _tolerates(toleration: dict[str, Any], taint: dict[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same_key: bool = toleration.get("key") == taint["key"]
    return same_key and bool(toleration.get("value", "") == taint.get("value", ""))


def _readable(name: str, amount: Decimal) -> str:
    if name in ("memory", "ephemeral-storage"):
        return f"{amount / 1024**3:.4g}Gi"
    return f"{amount.normalize():f}"


def _names(names: list[str]) -> str:
    return f"node{'s' if len(names) > 1 else ''} {listed(names, _NAMED_NODES)}"
