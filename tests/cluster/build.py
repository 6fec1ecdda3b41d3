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


#: How many builds of a kind the cache keeps: one for each of two checkouts that differ.
_KEPT = 2


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The directory `NAME` (`kind-version…`) of the cache, made by `make(directory)` if it is missing.

    Made beside its place and renamed, so that it is never seen incomplete; if two build at the same
    time, one is kept. The builds of its kind that were not used for the longest time are removed.
    """
    place = build_cache() / name
    if place.is_dir():
        os.utime(place)
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
    same_kind = sorted(place.parent.glob(f"{name.partition('-')[0]}-*"), key=lambda one: -one.stat().st_mtime)
    for old in [one for one in same_kind if one != place][_KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def programs() -> Path:
    """The directory of `kube`, `coredns` and `pause`; about 7 minutes on two cores the first time.

    One module, so that the packages that Kubernetes and CoreDNS share are compiled once. Keyed by every
    file that goes into them.
    """
    source = SOURCES / "programs"
    version = _required_version(source, "k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    package = "k8s.io/component-base/version"
    facts = f"-X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(path.relative_to(source).as_posix().encode() + b"\0" + path.read_bytes())

    def make(directory: Path) -> None:
        flags = ["-trimpath", "-ldflags", f"-s -w {facts}"]
        _go(["build", *flags, "-o", f"{directory}/", "./kube", "./coredns", "./pause"], source, {})

    return cached(f"programs-{version}-{digest.hexdigest()[:12]}", make)


def versitygw() -> Path:
    """The S3 server."""
    package = f"github.com/versity/versitygw/cmd/versitygw@{VERSITYGW}"

    def make(directory: Path) -> None:
        _go(["install", "-trimpath", "-ldflags", "-s -w", package], SOURCES, {"GOBIN": str(directory)})

    return cached(f"versitygw-{VERSITYGW}", make) / "versitygw"


def debian_packages() -> None:
    """Install the missing ones of DEBIAN_PACKAGES. Raises ClusterError if there is no apt-get."""
    absent = [package for program, package in DEBIAN_PACKAGES.items() if shutil.which(program) is None]
    if not absent:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"not installed: {', '.join(absent)}; install them, or set TUNEYARD_TEST_KUBECONFIG"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *absent]):
        done = subprocess.run(["apt-get", *words], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise ClusterError(f"apt-get {' '.join(words)}: exit {done.returncode}: {done.stderr[-2000:]}")


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
