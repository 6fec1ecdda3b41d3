"""Which lines of a pod's log are new, when it is read again from an earlier time.

A node gives a log from a time on, in whole seconds; so after a lost connection some lines come
twice. Pure: no clock, no network.

    read first     …  08:00:07.9 a   08:00:08.1 b   08:00:08.1 b   08:00:08.3 c   (connection lost)
    read again     since 08:00:07:   a b b c d      of which only d is new
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

#: Read again from this long before the newest line: stdout and stderr are stamped apart, and may cross.
MARGIN_S = 2

#: Written in place of what cannot be had any more.
GAP = b"[launcher: lines are missing here: the node rotated its log while the connection was down]\n"


class NewLines:
    """The memory of what has been read: the lines of the last seconds, counted, since a line may repeat."""

    def __init__(self) -> None:
        self._recent: dict[int, Counter[bytes]] = {}  # second -> stamped lines read
        self._newest_s = 0
        self._awaited: Counter[bytes] = Counter()  # read before, and to come again in this reading
        self._overlapping = False  # in this reading, no line read before has come yet
        self._held: list[bytes] = []

    def since(self) -> str | None:
        """From when to read again (RFC 3339); None before the first line."""
        if not self._recent:
            return None
        return datetime.fromtimestamp(self._newest_s - MARGIN_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def read_again(self) -> None:
        """A new reading, from `since()`, begins."""
        self._awaited = Counter()
        for lines in self._recent.values():
            self._awaited.update(lines)
        self._overlapping = bool(self._recent)
        self._held = []

    def take(self, stamped: bytes) -> list[bytes]:
        """The lines to show for the next line as the node sends it, without their timestamps.

        Empty for a line read before, and for what is not of the log (a node's own remark has no timestamp).
        """
        split = _stamp(stamped)
        if split is None:
            return []
        second, text = split
        if self._awaited[stamped] > 0:
            self._awaited[stamped] -= 1
            # What came before it is the tail of a long line, cut by `since`.
            self._overlapping, self._held = False, []
            return []
        if self._overlapping and second <= self._newest_s:
            self._held.append(stamped)
            return []
        shown = self._gap() if self._overlapping else []
        self._remember(second, stamped)
        return [*shown, text]

    def end(self) -> list[bytes]:
        """The lines to show at the end of a reading: those held back, where nothing read before has come."""
        return self._gap() if self._held else []

    def _gap(self) -> list[bytes]:
        """The line read last should have come again, and has not: the node has begun another file."""
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
