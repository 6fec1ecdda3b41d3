"""Decides from NetworkPolicies whether one pod may connect to another, with Kubernetes' semantics.

A pod that a policy selects for a direction is isolated in that direction: a connection needs a rule of any such policy.
It needs to be allowed by both ends. Policies act in their own namespace.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

Labels = dict[str, str]
Policy = dict[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """A pod with its namespace, or an address outside the cluster (`namespace` is empty)."""

    ip: str
    namespace: str = ""
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """The labels of namespaces, and every policy, each with its namespace in its metadata."""

    namespaces: dict[str, Labels]
    policies: list[Policy]

    def may_connect(self, source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP") -> bool:
        return self._allows(source, target, port, protocol, "Egress") and self._allows(
            target, source, port, protocol, "Ingress"
        )

    def _allows(self, own: Endpoint, other: Endpoint, port: int, protocol: str, direction: str) -> bool:
        selecting = [
            policy
            for policy in self.policies
            if own.namespace
            and policy["metadata"].get("namespace") == own.namespace
            and direction in policy_types(policy["spec"])
            and selects(policy["spec"].get("podSelector") or {}, own.labels)
        ]
        rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        return not selecting or any(
            self._matches_peers(rule.get(peers), other, own.namespace)
            and matches_ports(rule.get("ports"), port, protocol)
            for policy in selecting
            for rule in policy["spec"].get(rules) or ()
        )

    def _matches_peers(self, peers: list[dict[str, Any]] | None, other: Endpoint, namespace: str) -> bool:
        """An absent or empty list matches everything."""
        return not peers or any(self._matches(peer, other, namespace) for peer in peers)

    def _matches(self, peer: dict[str, Any], other: Endpoint, namespace: str) -> bool:
        if block := peer.get("ipBlock"):
            return within(other.ip, block["cidr"]) and not any(
                within(other.ip, hole) for hole in block.get("except") or ()
            )
        if not other.namespace:
            return False
        if "namespaceSelector" in peer:
            if not selects(peer["namespaceSelector"] or {}, self.namespaces[other.namespace]):
                return False
        elif other.namespace != namespace:
            return False
        return selects(peer.get("podSelector") or {}, other.labels)


def policy_types(spec: dict[str, Any]) -> list[str]:
    """Ingress always and Egress with egress rules, unless the policy says."""
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    return all(
        labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()
    ) and all(_expression(each, labels) for each in selector.get("matchExpressions") or ())


def _expression(expression: dict[str, Any], labels: Labels) -> bool:
    key, operator = expression["key"], expression["operator"]
    if operator == "In":
        return labels.get(key) in expression["values"]
    if operator == "NotIn":
        return labels.get(key) not in expression["values"]
    if operator == "Exists":
        return key in labels
    assert operator == "DoesNotExist", operator
    return key not in labels


def matches_ports(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    """An absent or empty list matches every port of every protocol."""
    return not ports or any(
        each.get("protocol", "TCP") == protocol
        and ("port" not in each or each["port"] <= port <= each.get("endPort", each["port"]))
        for each in ports
    )


def within(ip: str, cidr: str) -> bool:
    address, network = ipaddress.ip_address(ip), ipaddress.ip_network(cidr)
    return address.version == network.version and address in network
