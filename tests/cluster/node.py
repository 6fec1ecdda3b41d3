"""The cluster as a whole: up, down, status, and faults for tests."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import boto3

from . import build, certificates, components, containers, images, network, places, processes
from .api import JSON_PATCH, Api, ApiError
from .components import NODE, Components, Programs
from .network import Network
from .places import State
from .processes import ClusterError

GPU_PRODUCT = "NVIDIA-A40"
BUCKET = "tuneyard"
# The order of starting; ending goes backwards.
PROCESSES = (
    "etcd",
    "api-server",
    "controller-manager",
    "scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "coredns",
    "s3",
)


@dataclass(frozen=True)
class S3:
    """The S3 server: one address for this machine and for pods."""

    address: str
    bucket: str
    access_key: str
    secret_key: str


def up(gpu_count: int | None = None) -> State:
    """Start the cluster if it is not complete and return its state.

    The remains of an incomplete one are removed first. `gpu_count`: the number of GPUs that the node
    reports; None leaves it unchanged. Raises ClusterError.
    """
    if os.geteuid() != 0 or os.uname().sysname != "Linux":
        raise ClusterError("the cluster needs root on Linux; or set TUNEYARD_TEST_KUBECONFIG")
    state = places.state()
    with _locked():
        if not whole(state) and not _mended(state):
            _down(state)
            _up(state)
        if gpu_count is not None:
            set_gpus(gpu_count, state=state)
    return state


def down() -> None:
    """Remove every trace of the cluster but the programs and images that were built for it."""
    with _locked():
        _down(places.state())


def whole(state: State) -> bool:
    """Whether the cluster is up: every process alive and the API server ready."""
    alive = all(processes.running(state, name) is not None for name in PROCESSES)
    return state.complete.exists() and alive and Api(state.kubeconfig).ready()


def s3(state: State) -> S3:
    """Address and keys of the S3 server."""
    return S3(**json.loads(state.s3_keys.read_text()))


def set_gpus(count: int, product: str = GPU_PRODUCT, state: State | None = None) -> None:
    """Make the node report `count` GPUs; 0 removes its GPU label too. Returns once they are allocatable."""
    api = Api((state or places.state()).kubeconfig)
    path = f"/api/v1/nodes/{NODE}"
    label = {"metadata": {"labels": {"nvidia.com/gpu.product": product if count else None}}}
    api.patch(path, label)
    present = "nvidia.com/gpu" in api.get(path)["status"]["capacity"]
    if count or present:
        # The kubelet works out what is allocatable from the capacity too, but only every 10 s.
        fields = [f"/status/{field}/nvidia.com~1gpu" for field in ("capacity", "allocatable")]
        changes = [{"op": "add", "path": field, "value": str(count)} for field in fields]
        api.patch(f"{path}/status", changes, JSON_PATCH)
    processes.wait_for(f"{count} GPUs allocatable", lambda: gpus(state) == count, 60)


def stop_apiserver(state: State | None = None) -> None:
    """Stop the API server within 3 s: a clean shutdown would wait for its clients' watches."""
    processes.stop(state or places.state(), "api-server", grace_s=3)


def start_apiserver(state: State | None = None) -> None:
    """Start the API server, wait until it is ready, and restart the controllers.

    Their own reconnection backs off to a minute after several restarts; by then they take the node for lost,
    because they missed the renewals of its lease.
    """
    chosen = state or places.state()
    api, parts = Api(chosen.kubeconfig), _components(chosen)
    processes.start(chosen, "api-server", parts.api_server())
    processes.await_ready(chosen, "api-server", api.ready, 120)
    for name, words in (("controller-manager", parts.controller_manager()), ("scheduler", parts.scheduler())):
        processes.stop(chosen, name, grace_s=3)
        processes.start(chosen, name, words)


def restart_apiserver(state: State | None = None) -> None:
    """Restart it under the lock, so that a concurrent `up` does not find the cluster incomplete."""
    with _locked():
        stop_apiserver(state)
        start_apiserver(state)


def gpus(state: State | None = None) -> int:
    """The number of GPUs that the node reports."""
    node = Api((state or places.state()).kubeconfig).get(f"/api/v1/nodes/{NODE}")
    return int(node["status"]["allocatable"].get("nvidia.com/gpu", 0))


def stop_s3(state: State | None = None) -> None:
    processes.stop(state or places.state(), "s3", grace_s=5)


def start_s3(state: State | None = None) -> None:
    """Start the S3 server on its existing data."""
    chosen = state or places.state()
    server = s3(chosen)
    keys = {"ROOT_ACCESS_KEY_ID": server.access_key, "ROOT_SECRET_ACCESS_KEY": server.secret_key}
    processes.start(chosen, "s3", _components(chosen).versitygw(), keys)
    processes.await_ready(chosen, "s3", lambda: _answers(server.address), 30)


def kill_all_containers(
    namespace: str | None = None, pod: str | None = None, state: State | None = None
) -> int:
    """SIGKILL every container of the node (of one namespace's pods, of one pod), as a crash would; how many."""
    return containers.kill_all(state or places.state(), namespace, pod)


def freeze(namespace: str, pod: str) -> int:
    """SIGSTOP every process of a pod: it neither works nor answers, and only SIGKILL ends it; how many."""
    pids = containers.processes_of(places.state(), namespace, pod)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    return len(pids)


@contextlib.contextmanager
def lost(state: State | None = None) -> Iterator[Callable[[str, str], None]]:
    """Suspend the kubelet, as if the node had lost its network.

    Yields a function of a namespace and a pod that suspends the pod's processes too; all resume at the end.
    """
    chosen = state or places.state()
    kubelet = processes.running(chosen, "kubelet")
    if kubelet is None:
        raise ClusterError("the kubelet does not run")
    stopped = [kubelet]
    os.kill(kubelet, signal.SIGSTOP)

    def stop(namespace: str, pod: str) -> None:
        for pid in containers.processes_of(chosen, namespace, pod):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    try:
        yield stop
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def prepare() -> Path:
    """Install and build what is missing; returns the archive of the pause image."""
    build.debian_packages()
    _programs()
    return images.pause_image()


def _up(state: State) -> None:
    pause = prepare()
    if containers.pods_of_others():
        raise ClusterError(
            "another kubelet runs pods on this machine: set TUNEYARD_TEST_KUBECONFIG to use it"
        )
    state.directory.mkdir(parents=True, mode=0o700)
    chosen = network.choose()
    made = [str(path) for path in places.OUTSIDE if not path.exists()]
    state.machine.write_text(json.dumps({"network": chosen.to_json(), "made": made}))
    network.up(chosen, state)
    parts = _components(state)
    parts.write(certificates.create(state.certificates))
    api = Api(state.kubeconfig)

    processes.start(state, "etcd", parts.etcd())
    processes.start(state, "containerd", parts.containerd())
    processes.await_ready(
        state, "etcd", lambda: _answers(f"http://127.0.0.1:{components.ETCD_PORT}/health"), 60
    )
    processes.start(state, "api-server", parts.api_server())
    processes.await_ready(state, "containerd", lambda: containers.answers(state), 60)
    images.load(state, pause)
    processes.await_ready(state, "api-server", api.ready, 120)
    processes.start(state, "controller-manager", parts.controller_manager())
    processes.start(state, "scheduler", parts.scheduler())
    processes.start(state, "kubelet", parts.kubelet())
    processes.start(state, "kube-proxy", parts.kube_proxy())
    _allow_name_server(api)
    processes.start(state, "coredns", parts.coredns())
    _make_s3(state, parts)
    processes.await_ready(state, "kubelet", lambda: _node_ready(api), 120)
    ready = f"http://127.0.0.1:{components.DNS_READY_PORT}/ready"
    processes.await_ready(state, "coredns", lambda: _answers(ready), 60)
    processes.await_ready(state, "kube-proxy", lambda: _service_reachable(chosen.kubernetes_service), 60)
    state.complete.touch()


def _mended(state: State) -> bool:
    """Restart the servers that a test stopped, if nothing else is missing."""
    missing = {name for name in PROCESSES if processes.running(state, name) is None}
    if not state.complete.exists() or not missing <= {"api-server", "s3"}:
        return False
    if "api-server" in missing:
        start_apiserver(state)
    if "s3" in missing:
        start_s3(state)
    return whole(state)


def _down(state: State) -> None:
    for name in reversed(PROCESSES):
        processes.stop(state, name, grace_s=2)  # Their state is removed anyway.
    containers.clear(state)
    try:
        machine = json.loads(state.machine.read_text())
    except (OSError, ValueError):  # None was started, or only its directory was made.
        machine = {"network": None, "made": []}
    network.down(machine["network"] and Network.from_json(machine["network"]))
    for path in machine["made"]:
        shutil.rmtree(path, ignore_errors=True)
    if state.directory.exists():
        shutil.rmtree(state.directory)


def _components(state: State) -> Components:
    facts = json.loads(state.machine.read_text())["network"]
    return Components(state, Network.from_json(facts), _programs())


def _programs() -> Programs:
    built = build.programs()
    return Programs(built / "kube", built / "coredns", build.versitygw())


def _make_s3(state: State, parts: Components) -> None:
    """Keys, the server, and the bucket."""
    (state.directory / "s3").mkdir()
    server = S3(parts.s3_address, BUCKET, secrets.token_hex(10), secrets.token_hex(20))
    state.s3_keys.touch(mode=0o600)
    state.s3_keys.write_text(json.dumps(server.__dict__))
    start_s3(state)
    client = boto3.client(
        "s3",
        endpoint_url=server.address,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    client.create_bucket(Bucket=BUCKET)


def _allow_name_server(api: Api) -> None:
    group = "rbac.authorization.k8s.io"
    reading = ["list", "watch"]
    role = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": reading},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": reading},
        ],
    }
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"kind": "User", "apiGroup": group, "name": "system:coredns"}],
    }
    api.apply(f"/apis/{group}/v1/clusterroles/system:coredns", role)
    api.apply(f"/apis/{group}/v1/clusterrolebindings/system:coredns", binding)


def _node_ready(api: Api) -> bool:
    try:
        conditions = api.get(f"/api/v1/nodes/{NODE}")["status"].get("conditions", [])
        api.get("/api/v1/namespaces/default/serviceaccounts/default")
    except ApiError:
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _service_reachable(address: IPv4Address) -> bool:
    """Whether the `kubernetes` Service's address leads to the API server."""
    try:
        with socket.create_connection((str(address), 443), timeout=1):
            return True
    except OSError:
        return False


def _answers(url: str) -> bool:
    """Whether the URL responds with a status below 500."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the machine's lock for starting and stopping the cluster."""
    place: Path = places.lock_file()
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
