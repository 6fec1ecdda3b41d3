"""What a stage does only in a pod: create its writable directories, and store a copy of its log.

A pod's root is read-only, and its log is deleted with it. Without TUNEYARD_TRY (target local) none of
this happens: the conductor writes the log.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.runtime.nodes import node_index
from launcher.outcome import Failure
from launcher.store.runs import Attempt

TRY = "TUNEYARD_TRY"
#: Variables of the directories that the pod's manifest makes writable.
_DIRECTORIES = ("HOME", "TMPDIR")
#: How long a child process that outlives the stage may keep the log open.
_TEE_TIMEOUT_S = 5.0


def make_directories() -> None:
    """Create HOME and TMPDIR with mode 0700. Call before anything else."""
    if TRY not in os.environ:
        return
    for name in _DIRECTORIES:
        if path := os.environ.get(name):
            Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def stored_log(attempt: Attempt, stage: str) -> Iterator[None]:
    """Copy the output of this process and its children to the try's log, and publish it at the end.

    Only node 0 does so. A killed process publishes nothing: its conductor reads the pod's own log.
    """
    number = os.environ.get(TRY, "")
    if not number.isdigit() or node_index() != 0:
        yield
        return
    path = attempt.log_path(stage, int(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _tee(path):
            yield
    finally:
        try:
            attempt.store.publish(attempt.path(f"logs/{path.name}"))
        except Failure as failure:
            # The pod still has the log: not a reason to fail the stage.
            print(f"warning: the log was not stored: {failure.what}", file=sys.stderr, flush=True)


@contextmanager
def _tee(path: Path) -> Iterator[None]:
    """Redirect descriptors 1 and 2 through a `tee` process, which also gets what is printed before a crash."""
    own = os.dup(1), os.dup(2)
    # Its own session: a signal to this process group must not end it first.
    tee = subprocess.Popen(
        ["tee", "-a", str(path)], stdin=subprocess.PIPE, stdout=own[0], start_new_session=True
    )
    assert tee.stdin is not None
    _flush()
    os.dup2(tee.stdin.fileno(), 1)
    os.dup2(tee.stdin.fileno(), 2)
    tee.stdin.close()
    try:
        yield
    finally:
        _flush()
        for number, descriptor in enumerate(own, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        try:
            tee.wait(_TEE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            tee.kill()
            tee.wait()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
