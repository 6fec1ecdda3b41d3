"""The ledger of an unfinished upload."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, NamedTuple

from launcher.store.local_state import write_whole
from launcher.system.json_text import parse_json


class SentPart(NamedTuple):
    """A part that the server has confirmed: the ETag that it returned, and the MD5 of the bytes.

    The two differ if the server encrypts with SSE-KMS or SSE-C. Only the ETag can complete an upload.
    """

    etag: str
    md5: str


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
        #: Object name -> part index as text -> [ETag, MD5]; only of unfinished uploads.
        self.parts: dict[str, dict[str, list[str]]] = dict(content.get("parts", {}))

    def begun(self, name: str, upload: str) -> None:
        with self._lock:
            self.uploads[name] = upload
            self.parts.pop(name, None)
            self._save()

    def sent(self, name: str, index: int, part: SentPart) -> None:
        with self._lock:
            self.parts.setdefault(name, {})[str(index)] = list(part)
            self._save()

    def part(self, name: str, index: int) -> SentPart | None:
        with self._lock:
            known = self.parts.get(name, {}).get(str(index))
        return SentPart(*known) if known is not None and len(known) == 2 else None

    def finished(self, name: str, digests: list[str]) -> None:
        with self._lock:
            self.uploads.pop(name, None)
            self.parts.pop(name, None)
            self.done[name] = digests
            self._save()

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        if self.path is not None:
            content = {
                "data": self.data,
                "uploads": self.uploads,
                "done": self.done,
                "parts": self.parts,
            }
            write_whole(self.path, json.dumps(content).encode())
