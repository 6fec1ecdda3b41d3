"""Artifacts: committed whole or not at all, verified on every read.

The layout of the store is DESIGN's: `inputs/<sha256>`, `stages/<stage key>/`,
`runs/<run id>/{plan.json, work/<stage>/, attempts/<n>/}`; docs/storage.md says how each backend
keeps it. Importing this package never imports boto3: only opening an `s3://` address does.
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
    Store,
    check_name,
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
    "Store",
    "check_name",
    "digest_file",
    "encode",
    "open_store",
]


def open_store(address: str, *, writable: bool = True) -> DirectoryStore:
    """The store at `file:///dir` or a plain directory path.

    With `writable` it is created where it is not there, and tried out. Raises Failure(STORE_FAILED)
    where it cannot be written, Failure(UNSUPPORTED) for other schemes.
    """
    scheme = urlparse(address).scheme
    if scheme in ("", "file"):
        root = Path(unquote(urlparse(address).path)) if scheme else Path(address)
        return DirectoryStore(root.expanduser().absolute(), writable=writable)
    raise Failure(
        Reason.UNSUPPORTED,
        f"the store {scheme}:// is not supported yet",
        where="--store",
        next_step="use a directory: --store file:///path",
    )
