"""Records of the store as types: read tolerantly at the boundary, written as the same JSON as ever."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Why a stage makes no progress, and what a person can do about it (empty if nothing in particular)."""

    what: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.what}; next: {self.next_step}" if self.next_step else self.what
