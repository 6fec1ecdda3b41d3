"""Layout of an artifact's files in objects: one per large file, packs of small files.

Packs save a request per small file; a single file is read from its pack by range.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.store.address import TransferLimits


@dataclass(frozen=True)
class Piece:
    """One file within an object."""

    name: str
    source: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class ObjectPlan:
    """An object to write: its name below the commit's prefix, and its files."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.pieces)

    def read(self, first: int, size: int) -> bytes:
        """Bytes [first, first + size) of the object, from its files. Raises OSError, ValueError if one shrank."""
        found = []
        for piece in self.pieces:
            start, end = max(first, piece.offset), min(first + size, piece.offset + piece.size_bytes)
            if start >= end:
                continue
            with piece.source.open("rb") as stream:
                stream.seek(start - piece.offset)
                data = stream.read(end - start)
            if len(data) != end - start:
                raise ValueError(f"{piece.name} changed while it was read")
            found.append(data)
        return found[0] if len(found) == 1 else b"".join(found)


def pack(files: list[tuple[str, Path, int]], limits: TransferLimits) -> list[ObjectPlan]:
    """Objects for `files` (name, path, bytes); deterministic."""
    small = [file for file in files if file[2] < limits.small_file_bytes]
    if len(small) <= limits.loose_files:
        small = []
    together = {name for name, _, _ in small}
    objects = [
        ObjectPlan(f"files/{name}", (Piece(name, path, 0, size),))
        for name, path, size in files
        if name not in together
    ]
    pieces: list[Piece] = []
    offset = number = 0
    for name, path, size in small:
        if pieces and offset + size > limits.pack_bytes:
            objects.append(ObjectPlan(f"packs/{number:05d}", tuple(pieces)))
            pieces, offset, number = [], 0, number + 1
        pieces.append(Piece(name, path, offset, size))
        offset += size
    if pieces:
        objects.append(ObjectPlan(f"packs/{number:05d}", tuple(pieces)))
    return objects


def places(objects: list[ObjectPlan]) -> dict[str, tuple[str, int]]:
    """File name -> (object, offset) of everything packed."""
    return {
        piece.name: (planned.name, piece.offset)
        for planned in objects
        if planned.name.startswith("packs/")
        for piece in planned.pieces
    }


def describe(
    objects: list[ObjectPlan], part_digests: dict[str, list[str]], part_bytes: int
) -> dict[str, Any]:
    """The manifest's `storage`: packs with their files' offsets, and MD5s of the parts of large objects."""
    packs: dict[str, dict[str, int]] = {}
    for name, (planned, offset) in places(objects).items():
        packs.setdefault(planned, {})[name] = offset
    parts = {name: digests for name, digests in part_digests.items() if len(digests) > 1}
    return {"packs": packs, "part_bytes": part_bytes, "part_md5": parts}
