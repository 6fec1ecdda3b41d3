"""Drops the lines of a pod's log that were read before, when it is read again from an earlier time.

A node returns a log from a given second on, so after a lost connection some lines are repeated. Pure: no clock,
no network.

    first reading     …  08:00:07.9 a   08:00:08.1 b   08:00:08.1 b   08:00:08.3 c   (connection lost)
    second reading    since 08:00:07:   a b b c d      only d is new
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

#: A new reading starts this long before the newest line: stdout and stderr are stamped separately and may cross.
MARGIN_S = 2

#: Written in place of lines that are gone.
GAP = b"[launcher: lines are missing here: the node rotated its log while the connection was down]\n"


class NewLines:
    """Counts the lines of the last seconds read; a line may occur several times."""

    def __init__(self) -> None:
        self._recent: dict[int, Counter[bytes]] = {}  # second -> stamped lines read
        self._newest_s = 0
        self._awaited: Counter[bytes] = Counter()  # read before, expected again in this reading
        self._overlapping = False  # no line read before has come in this reading yet
        self._held: list[bytes] = []

    def since(self) -> str | None:
        """Where the next reading starts (RFC 3339); None before the first line."""
        if not self._recent:
            return None
        return datetime.fromtimestamp(self._newest_s - MARGIN_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def read_again(self) -> None:
        """Begin a new reading, from `since()`."""
        self._awaited = Counter()
        for lines in self._recent.values():
            self._awaited.update(lines)
        self._overlapping = bool(self._recent)
        self._held = []

    def take(self, stamped: bytes) -> list[bytes]:
        """The lines to show, without timestamps, for the next line that the node sends.

        Empty for a line read before, and for a message of the node itself, which has no timestamp.
        """
        split = _stamp(stamped)
        if split is None:
            return []
        second, text = split
        if self._awaited[stamped] > 0:
            self._awaited[stamped] -= 1
            # The lines held back are the end of a long line that `since` has cut.
            self._overlapping, self._held = False, []
            return []
        if self._overlapping and second <= self._newest_s:
            self._held.append(stamped)
            return []
        shown = self._gap() if self._overlapping else []
        self._remember(second, stamped)
        return [*shown, text]

    def end(self) -> list[bytes]:
        """The lines to show at the end of a reading: those held back if no line read before has come."""
        return self._gap() if self._held else []

    def _gap(self) -> list[bytes]:
        """The line read last is missing from this reading: the node has rotated the log."""
        self._overlapping = False
        held, self._held = self._held, []
        shown = [GAP]
        for stamped in held:
            second, text = _stamp(stamped) or (self._newest_s, stamped)
            self._remember(second, stamped)
            shown.append(text)
        return shown

    def _remember(self, second: int, stamped: bytes) -> None:
        self._recent.setdefault(second, Counter())[stamped] += 1
        if second > self._newest_s:
            self._newest_s = second
            for old in [s for s in self._recent if s < second - MARGIN_S]:
                del self._recent[old]


def _stamp(stamped: bytes) -> tuple[int, bytes] | None:
    """(seconds since 1970, the line) of `2026-11-22T08:00:07.123456789Z the line`."""
    stamp, space, text = stamped.partition(b" ")
    if not space:
        return None
    try:
        moment = datetime.fromisoformat(stamp.decode("ascii"))
        return int(moment.timestamp()), text
    except ValueError:
        return None
