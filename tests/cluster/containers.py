"""The containers of the node: list, kill and remove them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

from . import processes
from .places import State
from .processes import ClusterError, command, wait_for

_CGROUPS = Path("/sys/fs/cgroup")
_CNI_RESULTS = Path("/var/lib/cni/results")


def ctr(state: State, *words: str | Path) -> str:
    """Run containerd's client in the kubelet's namespace."""
    return command("ctr", "--address", state.containerd_socket, "--namespace", "k8s.io", *words)


def answers(state: State) -> bool:
    """Whether containerd with its kubelet interface is ready."""
    try:
        return state.containerd_socket.exists() and " cri " in command(
            "ctr", "--address", state.containerd_socket, "plugins", "list", timeout_s=10
        )
    except ClusterError:
        return False


def kill_all(state: State, namespace: str | None = None, pod: str | None = None) -> int:
    """SIGKILL to the first process of every container (of one namespace of Kubernetes, one pod); how many."""
    killed = 0
    for bundle in _containers(state, namespace, pod):
        with contextlib.suppress(OSError, ValueError):  # Already gone.
            os.kill(int((bundle / "init.pid").read_text()), signal.SIGKILL)
            killed += 1
    return killed


def processes_of(state: State, namespace: str, pod: str) -> list[int]:
    """Every process of a pod's containers."""
    firsts = [int((bundle / "init.pid").read_text()) for bundle in _containers(state, namespace, pod)]
    inside = {_pid_namespace(first) for first in firsts}
    all_pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in all_pids if _pid_namespace(pid) in inside - {None}]


def _containers(state: State, namespace: str | None, pod: str | None) -> list[Path]:
    """The bundles of running containers, those that only hold a pod's namespaces left out."""
    found = []
    for bundle in _bundles(state):
        annotations = _settings(bundle).get("annotations", {})
        if namespace is not None and annotations.get("io.kubernetes.cri.sandbox-namespace") != namespace:
            continue
        if pod is not None and annotations.get("io.kubernetes.cri.sandbox-name") != pod:
            continue
        if annotations.get("io.kubernetes.cri.container-type") != "sandbox":
            found.append(bundle)
    return found


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def clear(state: State) -> None:
    """End every container and shim of this containerd, and remove what they leave in the kernel.

    Works from the files on disk, because containerd itself may be dead already.
    """
    namespaces = {path for bundle in _bundles(state) for path in _network_namespaces(bundle)}
    results = [one for bundle in _bundles(state) for one in _CNI_RESULTS.glob(f"*-{bundle.name}-*")]
    sockets = {socket for bundle in _bundles(state) for socket in _shim_sockets(bundle)}
    if state.directory.exists():
        for pid in _in_pods():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in _shims(state):
            processes.end(pid, grace_s=0)
        wait_for("the pods' processes are gone", lambda: not _in_pods(), 20)
    unmount_below(state.directory)
    for path in namespaces:
        command("umount", "--lazy", path, check=False)
        Path(path).unlink(missing_ok=True)
    for left in [*sockets, *results]:
        left.unlink(missing_ok=True)
    for kubepods in _kubepods():
        _remove_cgroup(kubepods)


def pods_of_others() -> bool:
    """Whether something that is not ours runs pods on this machine: there can be one kubelet only."""
    return bool(_in_pods())


def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, innermost first."""
    below = f"{directory}/"
    mounted = [
        line.split()[1].replace("\\040", " ") for line in Path("/proc/self/mounts").read_text().splitlines()
    ]
    for place in reversed([one for one in mounted if one.startswith(below)]):
        command("umount", "--lazy", place)


def _bundles(state: State) -> list[Path]:
    return sorted(state.bundles.iterdir()) if state.bundles.is_dir() else []


def _settings(bundle: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    except (OSError, ValueError):  # A container that is just being made or removed.
        return {}
    return settings


def _network_namespaces(bundle: Path) -> list[str]:
    """The named network namespaces of a container; a pod on the host's network has none."""
    listed = _settings(bundle).get("linux", {}).get("namespaces", [])
    paths = [one.get("path", "") for one in listed if one.get("type") == "network"]
    return [path for path in paths if path.startswith(("/var/run/netns/", "/run/netns/"))]


def _shim_sockets(bundle: Path) -> list[Path]:
    """A killed shim leaves its socket, at a place that containerd does not let one choose."""
    try:
        return [Path((bundle / "address").read_text().strip().removeprefix("unix://"))]
    except OSError:
        return []


def _kubepods() -> list[Path]:
    """The cgroup of all pods: one per controller (version 1) or one (version 2)."""
    return [one for one in [*_CGROUPS.glob("*/kubepods"), _CGROUPS / "kubepods"] if one.is_dir()]


def _in_pods() -> set[int]:
    found: set[int] = set()
    for kubepods in _kubepods():
        for listing in kubepods.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in listing.read_text().split())
    return found


def _shims(state: State) -> list[int]:
    """The shims of this containerd: its socket is on their command line."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if b"containerd-shim" in words[0] and str(state.containerd_socket).encode() in words:
                    found.append(int(process.name))
    return found


def _remove_cgroup(cgroup: Path) -> None:
    """Depth first: a cgroup with children cannot go; nor, for a moment, one whose last process just went."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        wait_for(f"{directory} removed", partial(_remove, directory), 10)


def _remove(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
