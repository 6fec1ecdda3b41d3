"""What a stage notes before and after it asks a service for something that costs money.

Intents stand here before the request is made, results as soon as they are known. For a rehearsal
the notes lie beside the server's state, so that both are saved and restored together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from jobs.stage import StageContext
from launcher.system.files import write_atomic


class Notes(Protocol):
    def get(self, name: str) -> Any:
        """What was noted under `name`, or None."""
        ...

    def put(self, name: str, value: Any) -> None: ...

    def names(self, folder: str) -> list[str]:
        """Names noted under `folder`."""
        ...


class StoreNotes:
    """In the stage's work area."""

    def __init__(self, context: StageContext) -> None:
        self._context = context

    def get(self, name: str) -> Any:
        return self._context.store.get_json(self._path(name))

    def put(self, name: str, value: Any) -> None:
        self._context.store.put_json(self._path(name), value, create_once=False)

    def names(self, folder: str) -> list[str]:
        return [name.removesuffix(".json") for name in self._context.store.list(self._path(folder, ""))]

    def _path(self, name: str, suffix: str = ".json") -> str:
        return self._context.work_path(f"notes/{name}{suffix}")


class DirectoryNotes:
    """In a directory that is saved with a rehearsal's state."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> Any:
        try:
            return json.loads((self._root / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return None

    def put(self, name: str, value: Any) -> None:
        path = self._root / f"{name}.json"
        write_atomic(path, json.dumps(value).encode())

    def names(self, folder: str) -> list[str]:
        directory = self._root / folder
        if not directory.is_dir():
            return []
        return sorted(path.stem for path in directory.glob("*.json") if not path.name.startswith("."))
