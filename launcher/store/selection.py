"""The store of a command: its option, else the site file's, else the default directory."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.spec import site
from launcher.store import Store, open_store


def default_store() -> str:
    """`tuneyard/store` in the user's data directory."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return str(Path(base).expanduser() / "tuneyard" / "store")


def named_store(store_address: str | None, site_path: Path | None) -> str:
    """The address of the store that the options name."""
    return store_address or site.load(site_path).store.outside or default_store()


def open_named_store(store_address: str | None, site_path: Path | None, *, writable: bool = False) -> Store:
    """The store that the options name; created only if it is writable."""
    return open_store(named_store(store_address, site_path), writable=writable)
