"""What resolving an experiment gives, and the digests of local files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.spec.experiment import Experiment
from launcher.spec.lock import Lock
from launcher.store import digest_file

RELOCK = "write the lock again: --relock; or keep a second one for this: --lock OTHER.json"


@dataclass
class Resolution:
    """A lock, the experiment in the lock's words, and the paths of the locked files on this machine, by digest.

    A model or a task given as a directory is called by its content in `experiment` and `lock`
    (`directory-<12 hex digits>`, `NAME@<12 hex digits>`), so that no path of this machine reaches a plan.
    """

    experiment: Experiment
    lock: Lock
    locations: dict[str, Path] = field(default_factory=dict)

    def digest(self, path: Path) -> str:
        """The sha256 of a file, which is then among `locations`. Raises Failure(MISSING_INPUT)."""
        try:
            sha256 = digest_file(path).sha256
        except OSError as error:
            raise Failure(Reason.MISSING_INPUT, f"cannot read: {error.strerror}", where=str(path)) from None
        self.locations[sha256] = path
        return sha256


def check_locked(found: dict[str, str], locked: dict[str, str], where: str) -> None:
    """Compare files with the lock's. Raises Failure(MISSING_INPUT) if none were locked, Failure(BAD_DATA) if others."""
    changed = sorted(name for name in found.keys() | locked.keys() if found.get(name) != locked.get(name))
    if found and not locked:
        raise Failure(Reason.MISSING_INPUT, "its files are not in the lock", where=where, next_step=RELOCK)
    if changed:
        raise Failure(
            Reason.BAD_DATA,
            "the files are not those of the lock",
            where=where,
            problems=tuple(changed),
            next_step="use the files that were locked, or write the lock again: --relock",
        )
