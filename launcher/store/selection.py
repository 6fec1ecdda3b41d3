"""Which store a command uses: its own option, else the site's, else the default directory."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.spec import site
from launcher.store import Store, open_store


def default_store() -> str:
    """`tuneyard/store` in the user's data home."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return str(Path(base).expanduser() / "tuneyard" / "store")


def named_store(store_address: str | None, site_path: Path | None) -> str:
    """The address of the store that the options name, in their order of precedence."""
    return store_address or site.load(site_path).store.outside or default_store()


def open_named_store(store_address: str | None, site_path: Path | None, *, writable: bool = False) -> Store:
    """The store that the options name; created only where it is to be written."""
    return open_store(named_store(store_address, site_path), writable=writable)
