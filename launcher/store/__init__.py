"""Artifacts: committed whole or not at all, verified on every read.

Layout: `inputs/<sha256>`, `stages/<stage key>/`, `runs/<run id>/{plan.json, work/<stage>/, attempts/<n>/}`;
docs/storage.md describes the backends. boto3 is imported only when an `s3://` address is opened.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

from launcher.outcome import Failure, Reason
from launcher.store.artifact import (
    FORMAT,
    MANIFEST,
    Artifact,
    FileEntry,
    Leftover,
    Manifest,
    Progress,
    Store,
    digest_file,
    encode,
)
from launcher.store.directory import DirectoryArtifact, DirectoryStore

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Artifact",
    "DirectoryArtifact",
    "DirectoryStore",
    "FileEntry",
    "Leftover",
    "Manifest",
    "Progress",
    "Store",
    "digest_file",
    "encode",
    "open_store",
    "relative_path",
]


def open_store(
    address: str, *, writable: bool = True, patient: bool = False, progress: Progress | None = None
) -> Store:
    """The store at `s3://bucket/prefix`, `file:///dir` or a plain directory path.

    With `writable` a missing directory is created and the store is tested by a write. With `patient` a server that is
    away at the start is waited for as long as later; else the first contact fails after some seconds.
    Raises Failure(STORE_FAILED | NETWORK) if it cannot be used, Failure(USAGE | UNSUPPORTED) for an invalid address.
    """
    scheme = urlparse(address).scheme
    if scheme == "file":
        return DirectoryStore(_directory_of(address), writable=writable)
    if scheme == "":
        return DirectoryStore(Path(address).expanduser().absolute(), writable=writable)
    if scheme == "s3":
        return _open_s3(address, writable, patient, progress)
    raise Failure(
        Reason.UNSUPPORTED,
        f"the store {scheme}:// is not supported",
        where="--store",
        next_step="use a directory (file:///path) or s3://bucket/prefix",
    )


def _open_s3(address: str, writable: bool, patient: bool, progress: Progress | None) -> Store:
    from launcher.store.address import parse

    place = parse(address)
    from launcher.store.s3 import S3Store

    return S3Store(place, writable=writable, patient=patient, progress=progress)


def _directory_of(address: str) -> Path:
    """The directory of a file:// address, which must be absolute and on this machine."""
    parts = urlparse(address)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_absolute():
        raise Failure(
            Reason.USAGE,
            "a file address needs an absolute path",
            where=f"--store {address}",
            next_step="for example --store file:///data/store, with three slashes",
        )
    return path
