"""Local directories of a remote store: scratch files and logs per store, verified copies by content.

The state directory is kept as long as its runs; the cache can be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.system.files import write_atomic


def state_home() -> Path:
    """Tuneyard's directory for this user's state."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tuneyard"


def cache_home() -> Path:
    """The directory of verified copies: TUNEYARD_CACHE, or `tuneyard/store` in the user's cache directory."""
    named = os.environ.get("TUNEYARD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named).expanduser() if named else Path(base).expanduser() / "tuneyard" / "store"


def state_directory(address: str, base: Path | None = None) -> Path:
    """This machine's directory for the store at `address`, created if missing, with the address in a file."""
    directory = (base or state_home()) / "stores" / hashlib.sha256(address.encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    note = directory / "address"
    if not note.exists():
        write_whole(note, f"{address}\n".encode())
    return directory


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of a local write into a Failure with a next step."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Failure(
            Reason.DISK_FULL if full else Reason.STORE_FAILED,
            f"this machine cannot write: {error.strerror or error}",
            where=str(path),
            next_step="free space there, or name another disk: TUNEYARD_CACHE (copies of what is read), "
            "XDG_STATE_HOME (scratch and logs)",
        ) from error


def write_whole(path: Path, data: bytes | memoryview, mode: int = 0o644) -> None:
    """Write a file atomically. Raises Failure(DISK_FULL | STORE_FAILED)."""
    with explained(path):
        write_atomic(path, data, mode=mode)
