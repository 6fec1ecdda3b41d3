"""Images without a registry: made here as OCI archives, and imported straight into the node."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from launcher.store.file_locks import locked

from . import build, containers
from .places import State
from .processes import ClusterError

PAUSE = "localhost/tuneyard-pause:1"
BASE = "localhost/tuneyard-base:bookworm"
_BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "tini")
# Times inside the base are this one, so that it does not differ by when it was made.
_EPOCH = "1735689600"


def base_image() -> Path:
    """An OCI archive of a small Debian 12 with Python 3.11 and tini, named `BASE`; made once, in about 40 s."""

    def make(directory: Path) -> None:
        layer = directory / "layer.tar"
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_BASE_PACKAGES)}"]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
        done = subprocess.run(
            ["nice", *words, "bookworm", str(layer)], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise ClusterError(f"mmdebstrap: exit {done.returncode}: {done.stderr[-2000:]}")
        write_archive(directory / "base.tar", BASE, layer, ["python3"])
        layer.unlink()

    key = hashlib.sha256(repr(_BASE_PACKAGES).encode()).hexdigest()[:8]
    return build.cached(f"base-bookworm-{key}", make) / "base.tar"


def pause_image() -> Path:
    """An OCI archive of the image that holds each pod's namespaces."""
    program = build.programs() / "pause"

    def make(directory: Path) -> None:
        layer = directory / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            member = tarfile.TarInfo("pause")
            member.size, member.mode = program.stat().st_size, 0o755
            with program.open("rb") as content:
                archive.addfile(member, content)
        write_archive(directory / "pause.tar", PAUSE, layer, ["/pause"])
        layer.unlink()

    return build.cached(f"pause-{program.parent.name}", make) / "pause.tar"


def write_archive(place: Path, name: str, layer: Path, entrypoint: Sequence[str]) -> None:
    """An OCI archive of one uncompressed layer, tagged `name`."""
    with layer.open("rb") as content:
        layer_digest = hashlib.file_digest(content, "sha256").hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {
            "Entrypoint": list(entrypoint),
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
    }
    kind = "application/vnd.oci.image"
    with tarfile.open(place, "w") as archive:

        def add(content: bytes) -> tuple[str, int]:
            digest = hashlib.sha256(content).hexdigest()
            _member(archive, f"blobs/sha256/{digest}", content)
            return f"sha256:{digest}", len(content)

        member = tarfile.TarInfo(f"blobs/sha256/{layer_digest}")
        member.size = layer.stat().st_size
        with layer.open("rb") as content:
            archive.addfile(member, content)
        config_digest, config_size = add(json.dumps(config).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": config_digest, "size": config_size},
            "layers": [
                {
                    "mediaType": f"{kind}.layer.v1.tar",
                    "digest": f"sha256:{layer_digest}",
                    "size": member.size,
                }
            ],
        }
        manifest_digest, manifest_size = add(json.dumps(manifest).encode())
        entry = {
            "mediaType": f"{kind}.manifest.v1+json",
            "digest": manifest_digest,
            "size": manifest_size,
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }
        _member(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        _member(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


def load(state: State, archive: Path) -> str:
    """Import an OCI archive into the node, once: `name@sha256:…`, as a pod can name it.

    The kubelet finds an image by digest only if containerd has it under that very name. Other images
    of the same name are removed: a trainer takes 11 GB.
    """
    name, digest = _named(archive)
    reference = f"{_without_tag(name)}@{digest}"
    with locked(state.directory / "images.lock", wait=True):
        if reference not in containers.ctr(state, "images", "list", "--quiet").split():
            containers.ctr(state, "images", "import", archive)
            containers.ctr(state, "images", "tag", "--force", name, reference)
            _remove_others(state, _without_tag(name), digest)
    return reference


def _named(archive: Path) -> tuple[str, str]:
    """The name and the digest of an archive's one image."""
    with tarfile.open(archive) as layout:
        index = layout.extractfile("index.json")
        assert index is not None
        [entry] = json.load(index)["manifests"]
    return str(entry["annotations"]["org.opencontainers.image.ref.name"]), str(entry["digest"])


def _remove_others(state: State, repository: str, digest: str) -> None:
    """Every name of every other image of a repository; the kubelet gave each one more, after its configuration."""
    rows = [line.split() for line in containers.ctr(state, "images", "list").splitlines()[1:]]
    old = {row[2] for row in rows if _without_tag(row[0]) == repository} - {digest}
    for row in rows:
        if row[2] in old:
            containers.ctr(state, "images", "remove", row[0])


def _without_tag(name: str) -> str:
    """`localhost:5000/a:1` -> `localhost:5000/a`."""
    path, slash, last = name.rpartition("/")
    return path + slash + last.partition("@")[0].partition(":")[0]


def _member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
