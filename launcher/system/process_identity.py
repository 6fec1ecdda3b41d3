"""Which process holds something: identities that another process of the same machine can check."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one machine. `machine` is empty on systems without `/proc`: nothing can be checked there."""

    host: str
    #: The boot of the machine and the namespace in which `pid` counts.
    machine: str
    pid: int
    #: Start of the process in clock ticks since boot: a reused `pid` has another one.
    started_ticks: int

    @classmethod
    def own(cls) -> ProcessIdentity:
        pid = os.getpid()
        return cls(socket.gethostname(), _machine(), pid, _started_ticks(pid) or 0)

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended. False for processes of other machines and containers."""
        if not self.machine or self.machine != _machine():
            return False
        return _started_ticks(self.pid) != self.started_ticks


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started_ticks(pid: int) -> int | None:
    """Start of process `pid`; None if there is no such process, or if it has ended and was not waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field, the program's name, is in parentheses and may contain spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
