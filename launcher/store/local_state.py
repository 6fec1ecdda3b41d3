"""What belongs to a remote store on this machine: scratch and logs by store, verified copies by content.

`state` is kept until its run is gone; `cache` can be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tuneyard"


def cache_home() -> Path:
    """Where verified copies lie; TUNEYARD_CACHE names another place, for example a large scratch disk."""
    named = os.environ.get("TUNEYARD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named).expanduser() if named else Path(base).expanduser() / "tuneyard" / "store"


def state_directory(address: str, base: Path | None = None) -> Path:
    """This machine's directory for the store at `address`; made here, with a file that says whose it is."""
    directory = (base or state_home()) / "stores" / hashlib.sha256(address.encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    note = directory / "address"
    if not note.exists():
        write_whole(note, f"{address}\n".encode())
    return directory


def write_whole(path: Path, data: bytes | memoryview, mode: int = 0o644) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staged = tempfile.mkstemp(prefix=".uncommitted-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), mode)
        os.replace(staged, path)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise
