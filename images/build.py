"""Builds the images with buildah into OCI archives, keyed by their content.

`<cache>/<name>-<key>/image.tar` with `built.json` beside it: an unchanged tree builds nothing, and a changed source
reuses the layer with torch (buildah's layer cache).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from images.base import base_image, base_key
from images.commands import output, require, run
from launcher.store.file_locks import locked

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("conductor", "worker", "trainer")
#: Image -> the folder of its Containerfile, and the build arguments for it.
_RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "conductor": ("light", ("REQUIRED=-helm-python-sdk",)),
    "worker": ("light", ()),
    "trainer": ("trainer", ()),
}
_SOURCES = ("launcher", "jobs", "charts")
_FILES: tuple[str, ...] = ("pyproject.toml", "constraints.txt", "README.md", "images/requirements.py")
_FILES += ("images/build-constraints.txt", ".containerignore")
#: Below this much free space the layers of earlier builds are deleted.
_LOW_SPACE_BYTES = 20 << 30
_HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Built:
    """One image. `archive` holds it as `reference`; sizes are bytes, uncompressed."""

    name: str
    key: str
    reference: str
    digest: str
    archive: str
    size_bytes: int
    seconds: float


def cache_directory() -> Path:
    named = os.environ.get("TUNEYARD_BUILD_CACHE")
    return Path(named or "~/.cache/tuneyard/build").expanduser() / "images"


def build(
    names: tuple[str, ...] = NAMES, *, base: str | None = None, cache: Path | None = None
) -> list[Built]:
    """The images of this checkout; those that the cache lacks are built.

    `base` is the base image of all of them, by default a Debian base made here. Raises Failure(USAGE) if a program
    is missing, Failure(INTERNAL) if a step fails.
    """
    where = cache or cache_directory()
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tuneyard-images-") as context, locked(where / "lock", wait=True):
        # Built from a copy, so that edits during the build are in neither the key nor the image.
        _copy_sources(Path(context))
        keys = {name: _key(Path(context), name, base) for name in names}
        if any(_find(where, name, key) is None for name, key in keys.items()):
            require("buildah", "skopeo", *(() if base else ("mmdebstrap",)))
            base = base or base_image(where)
        return [
            _find(where, name, key) or _build(where, Path(context), name, key, str(base))
            for name, key in keys.items()
        ]


def containerfile(name: str) -> str:
    """The path of an image's Containerfile in the checkout."""
    return f"images/{_RECIPES[name][0]}/Containerfile"


def _copy_sources(context: Path) -> None:
    for file in (*_FILES, *(containerfile(name) for name in NAMES)):
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, context / file)
    for source in _SOURCES:
        left_out = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / source, context / source, ignore=left_out, copy_function=shutil.copyfile)
    for path in context.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _key(context: Path, name: str, base: str | None) -> str:
    """A digest of everything in the image `name`."""
    others = {containerfile(other) for other in NAMES} - {containerfile(name)}
    sha = hashlib.sha256("\0".join((base or base_key(), *_RECIPES[name][1], "")).encode())
    for file in sorted(path for path in context.rglob("*") if path.is_file()):
        relative = file.relative_to(context).as_posix()
        if relative not in others:
            sha.update(f"{relative}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return sha.hexdigest()[:16]


def _find(where: Path, name: str, key: str) -> Built | None:
    try:
        return Built(**json.loads((where / f"{name}-{key}" / "built.json").read_bytes()))
    except FileNotFoundError:
        return None


def _build(where: Path, context: Path, name: str, key: str, base: str) -> Built:
    started = time.monotonic()
    reference = f"localhost/tuneyard/{name}:{key}"
    run(_command(context, name, reference, base), environment={**os.environ, "BUILDAH_FORMAT": "oci"})
    directory = where / f"{name}-{key}"
    _remove_older(where, name, reference)
    staged = directory.with_name(f".{directory.name}-{os.getpid()}")
    staged.mkdir(parents=True)
    archive = staged / "image.tar"
    # Uncompressed: compressing the trainer takes minutes, and the archive stays on this machine.
    run(
        [
            *("skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers"),
            *(f"containers-storage:{reference}", f"oci-archive:{archive}:{reference}"),
        ]
    )
    built = Built(
        name=name,
        key=key,
        reference=reference,
        digest=_digest(archive),
        archive=str(directory / archive.name),
        size_bytes=archive.stat().st_size,
        seconds=round(time.monotonic() - started, 1),
    )
    (staged / "built.json").write_text(json.dumps(asdict(built), indent=2) + "\n")
    staged.replace(directory)
    return built


def _digest(archive: Path) -> str:
    """The digest of an archive's image, as a node that imports it reports it."""
    with tarfile.open(archive) as layout:
        index = layout.extractfile("index.json")
        assert index is not None
        return str(json.load(index)["manifests"][0]["digest"])


def _command(context: Path, name: str, reference: str, base: str) -> list[str]:
    command = ["buildah", "bud", "--isolation", "chroot", "--network", "host", "--layers"]
    command += ["--timestamp", "0", "--build-arg", "SOURCE_DATE_EPOCH=0", "--build-arg", f"BASE_IMAGE={base}"]
    if _HOST_CERTIFICATES.is_file():
        # pip uses this machine's trusted authorities; they do not stay in the image.
        command += ["--volume", f"{_HOST_CERTIFICATES}:/run/host-certificates.crt:ro"]
        command += ["--build-arg", "PIP_CERT=/run/host-certificates.crt"]
    for argument in _RECIPES[name][1]:
        command += ["--build-arg", argument]
    return [*command, "--tag", reference, "--file", str(context / containerfile(name)), str(context)]


def _remove_older(where: Path, name: str, keep: str) -> None:
    """Delete all but one archive of the image: the trainer's takes gigabytes."""
    for old in where.glob(f"{name}-*"):
        shutil.rmtree(old)
    ours = output(["buildah", "images", "--format", "{{.Name}}:{{.Tag}}"]).splitlines()
    for reference in ours:
        if reference.startswith(f"localhost/tuneyard/{name}:") and reference != keep:
            run(["buildah", "rmi", "--force", reference])
    if shutil.disk_usage(where).free < _LOW_SPACE_BYTES:
        run(["buildah", "rmi", "--prune"])
