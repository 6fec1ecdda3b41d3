"""A Debian base image for machines without a registry: `localhost/tuneyard/base:<packages>`.

It replaces the Containerfiles' pinned bases: same distribution, same steps on top. It does not cover the CUDA base.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from images.commands import output, run

_SUITE = "bookworm"
_PACKAGES = ("ca-certificates",)
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
_OPTIONS = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]


def base_key() -> str:
    """A digest of the base's recipe."""
    return hashlib.sha256("\n".join([_SUITE, *_PACKAGES, *_OPTIONS]).encode()).hexdigest()[:12]


def base_image(cache: Path) -> str:
    """The base's name in buildah's storage; it is built if missing, in about half a minute."""
    key = base_key()
    name = f"localhost/tuneyard/base:{key}"
    if subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True).returncode == 0:
        return name
    archive = cache / f"base-{key}.tar"
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        staged = archive.with_suffix(f".{os.getpid()}.tar")
        run(
            [
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
                *(f"--include={','.join(_PACKAGES)}", *_OPTIONS, _SUITE, str(staged)),
            ]
        )
        staged.replace(archive)
    container = output(["buildah", "from", "scratch"])
    try:
        run(["buildah", "add", "--quiet", container, str(archive), "/"])
        run(["buildah", "config", "--cmd", "/bin/sh", container])
        run(["buildah", "commit", "--quiet", "--timestamp", "0", container, name])
    finally:
        run(["buildah", "rm", container])
    return name
