"""Paths of the cluster: the build cache and the state of the running cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
# Directories that containerd and the kubelet make whatever their settings are.
OUTSIDE = (
    Path("/etc/cni"),
    Path("/opt/containerd"),
    Path("/run/containerd"),
    Path("/run/netns"),
    Path("/usr/libexec/kubernetes"),
    Path("/var/lib/cni"),
    Path("/var/lib/kubelet"),
    Path("/var/log/containers"),
)


def build_cache() -> Path:
    """`$TUNEYARD_BUILD_CACHE`, by default `~/.cache/tuneyard/build`: outside every checkout."""
    named = os.environ.get("TUNEYARD_BUILD_CACHE")
    return (Path(named) if named else Path("~/.cache/tuneyard/build")).expanduser().resolve()


@dataclass(frozen=True)
class State:
    """The cluster's directory. `down` removes it whole."""

    directory: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.directory / "kubeconfig"

    @property
    def machine(self) -> Path:
        """Written first by `up`: the changes to the machine, for `down` to revert."""
        return self.directory / "machine.json"

    @property
    def complete(self) -> Path:
        """Written last by `up`."""
        return self.directory / "complete"

    @property
    def certificates(self) -> Path:
        return self.directory / "certificates"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def processes(self) -> Path:
        return self.directory / "processes"

    @property
    def containerd_socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def bundles(self) -> Path:
        """One directory per running container, as containerd's shims leave them."""
        return self.directory / "containerd-run" / "io.containerd.runtime.v2.task" / "k8s.io"

    @property
    def s3_keys(self) -> Path:
        """JSON, mode 0600: address, bucket, access_key, secret_key."""
        return self.directory / "s3.json"


def state() -> State:
    return State(build_cache().parent / "cluster")


def lock_file() -> Path:
    """Held while the cluster is brought up or down; beside the state, because that is removed."""
    return build_cache().parent / "cluster.lock"
