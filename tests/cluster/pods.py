"""Restricted pods of the base image, for tests."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from .api import Api
from .processes import ClusterError, wait_for


@dataclass(frozen=True)
class Namespace:
    """One namespace and its basic operations."""

    api: Api
    name: str

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.name}"

    def create(self, kind: str, manifest: dict[str, Any]) -> None:
        """Create an object of the core group; `kind` as in its address, such as `pods`."""
        self.api.create(f"{self.path}/{kind}", manifest)

    def pod(self, name: str) -> dict[str, Any]:
        pod: dict[str, Any] = self.api.get(f"{self.path}/pods/{name}")
        return pod

    def log(self, pod: str) -> str:
        return self.api.request("GET", f"{self.path}/pods/{pod}/log").decode()

    def wait_for_phase(self, pod: str, *phases: str, timeout_s: float = 120) -> dict[str, Any]:
        """Wait until a pod is in one of the phases; the pod. Raises ClusterError with its status."""
        try:
            wait_for(f"{pod} {' or '.join(phases)}", lambda: _phase(self.pod(pod)) in phases, timeout_s)
        except ClusterError as error:
            raise ClusterError(f"{error}; it is {self.pod(pod)['status']}") from None
        return self.pod(pod)

    def output(self, manifest: dict[str, Any], timeout_s: float = 120) -> str:
        """Run a pod to its end and return its log. Raises ClusterError if it fails."""
        name = manifest["metadata"]["name"]
        self.create("pods", manifest)
        pod = self.wait_for_phase(name, "Succeeded", "Failed", timeout_s=timeout_s)
        if _phase(pod) == "Failed":
            raise ClusterError(f"{name} failed: {pod['status']}\n{self.log(name)}")
        return self.log(name)


def restricted_pod(name: str, image: str, program: str, **container: Any) -> dict[str, Any]:
    """A pod that runs a Python program and that the restricted Pod Security Standard accepts."""
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "command": ["tini", "--", "python3", "-u", "-c", program],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **copy.deepcopy(container),
                }
            ],
        },
    }
    return pod


def terminated(pod: dict[str, Any]) -> dict[str, Any]:
    """How a pod's first container ended: exitCode, reason and more."""
    ended: dict[str, Any] = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return ended


def _phase(pod: dict[str, Any]) -> str:
    return str(pod["status"].get("phase"))
