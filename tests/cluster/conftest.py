"""The cluster and its fixtures, for tests with the marker `cluster`.

Each test has a namespace of its own and may run beside others (pytest -n). What disturbs the node is
marked `alone` and runs after them.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from launching import Launcher

from launcher.store.file_locks import locked

from . import images, node
from .api import Api
from .places import State
from .pods import Namespace
from .processes import wait_for
from .studies import RUN_LIMIT_S, SMOKE, ClusterUser, MakeUser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order for several workers: the longest run first, small tests while it loads the images, then the other runs."""

    def order(item: pytest.Item) -> int:
        if "two_nodes" in item.name:
            return 0
        return 2 if "make_user" in getattr(item, "fixturenames", ()) else 1

    items.sort(key=order)


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes to test with."""

    kubeconfig: Path
    api: Api
    # Of our own node; None if the user gave a kubeconfig.
    state: State | None

    def own(self) -> State:
        """The state of our own node, for tests that act below Kubernetes; skips on another cluster."""
        if self.state is None:
            pytest.skip("needs the node of tests/cluster: unset TUNEYARD_TEST_KUBECONFIG")
        return self.state


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of TUNEYARD_TEST_KUBECONFIG, else a node on this machine, started if it is not up."""
    given = os.environ.get("TUNEYARD_TEST_KUBECONFIG")
    if given:
        return Cluster(Path(given), Api(Path(given)), None)
    if os.geteuid() != 0 or os.uname().sysname != "Linux":
        missing = "a node needs root on Linux: set TUNEYARD_TEST_KUBECONFIG to use another cluster"
        if os.environ.get("TUNEYARD_CLUSTER_REQUIRED") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    state = node.up()
    return Cluster(state.kubeconfig, Api(state.kubeconfig), state)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A new namespace under the restricted Pod Security Standard, deleted after the test."""
    name = f"test-{secrets.token_hex(5)}"
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    path = f"/api/v1/namespaces/{name}"
    # Pods are refused until the namespace has this.
    accounts = f"{path}/serviceaccounts?fieldSelector=metadata.name=default"
    wait_for("the default service account", lambda: cluster.api.get(accounts)["items"], 60)
    yield Namespace(cluster.api, name)
    cluster.api.request("DELETE", f"{path}/pods", {"gracePeriodSeconds": 1})
    cluster.api.delete(path)


@pytest.fixture(scope="session")
def s3(cluster: Cluster) -> node.S3:
    """The S3 server beside the node: its address serves here and in pods."""
    return node.s3(cluster.own())


@pytest.fixture(scope="session")
def base_image(cluster: Cluster) -> str:
    """`name@digest` of the small Debian with Python on the node; TUNEYARD_TEST_IMAGE for another cluster."""
    given = os.environ.get("TUNEYARD_TEST_IMAGE")
    return given or images.load(cluster.own(), images.base_image())


@pytest.fixture
def one_gpu(cluster: Cluster) -> Iterator[None]:
    """Set the node's number of GPUs to one for this test."""
    state = cluster.own()
    before = node.gpus(state)
    node.set_gpus(1, state=state)
    yield
    node.set_gpus(before, state=state)


@pytest.fixture(scope="session")
def project_images(cluster: Cluster) -> dict[str, str]:
    """Name -> `name@digest` of the project's own images on the node, built from this checkout if they are not cached.

    TUNEYARD_TEST_PROJECT_IMAGES, a JSON object, names others (that any cluster can pull).
    """
    given = os.environ.get("TUNEYARD_TEST_PROJECT_IMAGES")
    if given:
        return dict(json.loads(given))
    from images.build import build

    return {one.name: images.load(cluster.own(), Path(one.archive)) for one in build()}


@pytest.fixture(scope="session")
def local_verdict(
    cluster: Cluster, project_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The result of the smoke profile's plan on this machine, computed once for all test processes."""
    shared = cluster.state.directory if cluster.state else tmp_path_factory.getbasetemp()
    code = project_images["trainer"].rpartition(":")[2][:16]
    verdict = shared / f"local-verdict-{code}.json"
    with locked(shared / "local-verdict.lock", wait=True):
        if not verdict.exists():
            launcher = Launcher(tmp_path_factory.mktemp("local"))
            made = launcher.json(*SMOKE, "--target", "local", "-o", "json", timeout_s=RUN_LIMIT_S)
            verdict.write_text(json.dumps(made))
    return dict(json.loads(verdict.read_text()))


@pytest.fixture
def own_node(cluster: Cluster) -> None:
    """For tests that act below Kubernetes; skips on another cluster."""
    cluster.own()


@pytest.fixture
def make_user(
    cluster: Cluster,
    namespace: Namespace,
    s3: node.S3,
    project_images: dict[str, str],
    tmp_path: Path,
) -> Iterator[MakeUser]:
    """Makes the user of one namespace; `prepare`'s keywords go to the site file."""
    users: list[ClusterUser] = []

    def make(**site: Any) -> ClusterUser:
        user = ClusterUser(tmp_path / "home", namespace=namespace, kubeconfig=cluster.kubeconfig, s3=s3)
        user.home.mkdir()
        user.prepare({**project_images, **site.pop("images", {})}, **site)
        users.append(user)
        return user

    yield make
    for user in users:
        for process in user.started:
            process.kill()
            process.wait()
