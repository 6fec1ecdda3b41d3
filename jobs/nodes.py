"""Which of several nodes this is, as the environment of an Indexed Job's pod says. One node is the usual case."""

from __future__ import annotations

import os
import re
import socket

from launcher.outcome import Failure, Reason

#: How many nodes carry out this stage; set by the pod's manifest.
COUNT = "TUNEYARD_NODES"
SERVICE = "TUNEYARD_RENDEZVOUS_SERVICE"
#: Set by Kubernetes in the pods of an Indexed Job.
INDEX = "JOB_COMPLETION_INDEX"
#: Where the first node is, if not at `<job>-0.<service>`.
HOST = "TUNEYARD_RENDEZVOUS_HOST"
PORT = "TUNEYARD_RENDEZVOUS_PORT"
_DEFAULT_PORT = 29500


def node_count() -> int:
    return int(os.environ.get(COUNT, "1"))


def node_index() -> int:
    """0 is the first, which alone reports and commits."""
    return int(os.environ.get(INDEX, "0")) if node_count() > 1 else 0


def first_node() -> tuple[str, int]:
    """Host and port where the nodes meet. Raises Failure(USAGE) where the environment does not say."""
    port = int(os.environ.get(PORT, _DEFAULT_PORT))
    if host := os.environ.get(HOST):
        return host, port
    service = os.environ.get(SERVICE)
    own = socket.gethostname()
    job = re.fullmatch(r"(.+)-\d+", own)
    if not service or not job:
        raise Failure(
            Reason.USAGE,
            f"the first of {node_count()} nodes cannot be named from host name '{own}' and service '{service or ''}'",
            where=SERVICE,
            next_step=f"run it as an Indexed Job with {SERVICE}, or set {HOST}",
        )
    return f"{job[1]}-0.{service}", port
