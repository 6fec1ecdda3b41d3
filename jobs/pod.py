"""What a stage does in a pod beyond its work: directories of its own, and a copy of its log in the store.

A pod's root is read-only, and its log is gone with it. Outside a pod (TUNEYARD_TRY is not set) nothing
of this happens: there the conductor writes the log.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.nodes import node_index
from launcher.outcome import Failure
from launcher.store.runs import Attempt

TRY = "TUNEYARD_TRY"
#: Where the process may write, by the pod's manifest.
_DIRECTORIES = ("HOME", "TMPDIR")
#: How long a child that outlives its stage may keep the log open.
_LAST_WORDS_S = 5.0


def make_directories() -> None:
    """Make the directories the environment names, which nobody else may read. Call before anything else."""
    if TRY not in os.environ:
        return
    for name in _DIRECTORIES:
        if path := os.environ.get(name):
            Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def log_kept(attempt: Attempt, stage: str) -> Iterator[None]:
    """What this process and its children print goes to the try's log as well, which is published at the end.

    Of several nodes the first one's. A process that is killed publishes nothing: its conductor reads
    the pod's own log.
    """
    number = os.environ.get(TRY, "")
    if not number.isdigit() or node_index() != 0:
        yield
        return
    path = attempt.log_path(stage, int(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _copied(path):
            yield
    finally:
        try:
            attempt.store.publish(attempt.path(f"logs/{path.name}"))
        except Failure as failure:
            # A log that only the pod has is no reason to fail a stage.
            print(f"warning: the log was not stored: {failure.what}", file=sys.stderr, flush=True)


@contextmanager
def _copied(path: Path) -> Iterator[None]:
    """Descriptors 1 and 2 lead through a `tee`, which is a process of its own: it also reads a crash's last words."""
    own = os.dup(1), os.dup(2)
    # In a session of its own, so that a signal to this process's group does not end it first.
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
            tee.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            tee.kill()
            tee.wait()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
