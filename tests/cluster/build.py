"""The programs of the cluster, built once from Go modules into a cache outside the checkout."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .places import SOURCES, build_cache
from .processes import ClusterError

VERSITYGW = "v1.8.0"
DEBIAN_PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "iptables": "iptables",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
}


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The directory `NAME` of the cache, made by `make(directory)` where it is not there yet.

    Made beside its place and renamed: nobody ever sees half of one, and of two that build at the
    same time one is kept.
    """
    place = build_cache() / name
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place.parent))
    try:
        make(draft)
        draft.chmod(0o755)
        try:
            draft.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def kube() -> Path:
    """One program with every part of Kubernetes; about 6 minutes on two cores the first time."""
    version = _required_version(SOURCES / "kube", "k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    package = "k8s.io/component-base/version"
    facts = f"-X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    return _from_module("kube", version, facts)


def coredns() -> Path:
    """The name server; about 3 minutes on two cores the first time."""
    return _from_module("coredns", _required_version(SOURCES / "coredns", "github.com/coredns/coredns"))


def pause() -> Path:
    """What holds a pod's namespaces; seconds."""
    return _from_module("pause", "1")


def versitygw() -> Path:
    """The S3 server."""
    package = f"github.com/versity/versitygw/cmd/versitygw@{VERSITYGW}"

    def make(directory: Path) -> None:
        _go(["install", "-trimpath", "-ldflags", "-s -w", package], SOURCES, {"GOBIN": str(directory)})

    return cached(f"versitygw-{VERSITYGW}", make) / "versitygw"


def debian_packages() -> None:
    """Install what Debian has, where it is absent. Raises ClusterError where there is no apt-get."""
    absent = [package for program, package in DEBIAN_PACKAGES.items() if shutil.which(program) is None]
    if not absent:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"needed and not here: {', '.join(absent)}; or set TUNEYARD_TEST_KUBECONFIG")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *absent]):
        done = subprocess.run(["apt-get", *words], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise ClusterError(f"apt-get {' '.join(words)}: exit {done.returncode}: {done.stderr[-2000:]}")


def _from_module(name: str, version: str, link_facts: str = "") -> Path:
    """Build the module `tests/cluster/NAME`, keyed by everything that goes into it."""
    source = SOURCES / name
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())

    def make(directory: Path) -> None:
        flags = ["-trimpath", "-ldflags", f"-s -w {link_facts}".strip()]
        _go(["build", *flags, "-o", str(directory / name), "."], source, {})

    return cached(f"{name}-{version}-{digest.hexdigest()[:12]}", make) / name


def _required_version(module: Path, of: str) -> str:
    found = re.search(rf"{re.escape(of)} (v[\w.\-]+)$", (module / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise ClusterError(f"{module / 'go.mod'} does not require {of}")
    return found[1]


def _go(words: Sequence[str], directory: Path, environment: dict[str, str]) -> None:
    if shutil.which("go") is None:
        raise ClusterError("Go 1.24 or newer is needed to build the cluster; or set TUNEYARD_TEST_KUBECONFIG")
    settings = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", **environment}
    done = subprocess.run(
        ["nice", "-n", "10", "go", *words], cwd=directory, env=settings, capture_output=True, text=True
    )
    if done.returncode:
        raise ClusterError(f"go {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()[-3000:]}")
