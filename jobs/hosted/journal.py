"""Journal of the requests of a stage that cost money: an entry before each request and one with its result.

Entries of a rehearsal are files beside the server's state, so that one snapshot saves and restores both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jobs.stage import StageContext
from launcher.system.files import write_atomic


@dataclass(frozen=True)
class Created:
    """Entry of an object that exists at the service: its id, and facts that identify its content."""

    id: str
    facts: dict[str, str | int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, **self.facts}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Created:
        return cls(str(document["id"]), {name: value for name, value in document.items() if name != "id"})


@dataclass(frozen=True)
class Intent:
    """Entry of a request about to be sent: the number of the try."""

    tries: int

    def to_json(self) -> dict[str, Any]:
        return {"tries": self.tries}


class Journal(Protocol):
    """Entries by name; names may contain one `/`."""

    def get(self, name: str) -> Any:
        """The entry's JSON document, or None."""
        ...

    def put(self, name: str, value: Any) -> None: ...

    def names(self, folder: str) -> list[str]:
        """Names of the entries in `folder`."""
        ...


def created(journal: Journal, name: str) -> Created | None:
    """The entry `name` if it holds an object of the service."""
    document = journal.get(name)
    return Created.from_json(document) if document else None


class StoreJournal:
    """A journal in the stage's work area."""

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


class DirectoryJournal:
    """A journal in a directory that is saved with the rehearsal server's state."""

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
