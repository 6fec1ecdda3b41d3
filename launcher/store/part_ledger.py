"""The ledger of an unfinished upload."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from launcher.store.local_state import write_whole
from launcher.system.json_text import parse_json


class PartLedger:
    """What an unfinished upload has done, in a local file; each entry is verified before it is used."""

    def __init__(self, path: Path | None, data: str) -> None:
        """`data` names the commit's own prefix; a file with an older one continues that one."""
        self.path = path
        self._lock = threading.Lock()
        content: dict[str, Any] = {}
        if path is not None:
            try:
                content = parse_json(path.read_bytes())
            except (OSError, ValueError):
                content = {}
        if not isinstance(content, dict) or not isinstance(content.get("data"), str):
            content = {"data": data, "uploads": {}, "done": {}}
        self.data: str = content["data"]
        self.uploads: dict[str, str] = dict(content.get("uploads", {}))
        self.done: dict[str, list[str]] = dict(content.get("done", {}))

    def begun(self, name: str, upload: str) -> None:
        with self._lock:
            self.uploads[name] = upload
            self._save()

    def finished(self, name: str, digests: list[str]) -> None:
        with self._lock:
            self.uploads.pop(name, None)
            self.done[name] = digests
            self._save()

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        if self.path is not None:
            content = {"data": self.data, "uploads": self.uploads, "done": self.done}
            write_whole(self.path, json.dumps(content).encode())
