"""Child processes that do not outlive their parent (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
#: Exit code of a child whose parent was gone before it could ask for the signal: as if it had been killed.
PARENT_GONE_EXIT = 137


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends. Does nothing on other systems than Linux.

    `parent` is the process id that is still expected to be the parent, by default the current one; if another
    process has taken its place, this process exits at once with code 137.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent is None else parent
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != expected:
        os._exit(PARENT_GONE_EXIT)


def killed_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` for subprocess that calls `die_with_parent` in the child; None on other systems than Linux."""
    if not sys.platform.startswith("linux"):
        return None
    parent = os.getpid()
    # Loaded here: between fork and exec the child must not load a library.
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(PARENT_GONE_EXIT)

    return prepare
