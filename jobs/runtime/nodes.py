"""This node's identity in a multi-node stage, from the environment of an Indexed Job's pod."""

from __future__ import annotations

import os
import re
import socket

from launcher.outcome import Failure, Reason

#: Number of nodes of this stage; set in the pod's manifest.
COUNT = "TUNEYARD_NODES"
SERVICE = "TUNEYARD_RENDEZVOUS_SERVICE"
#: Set by Kubernetes in the pods of an Indexed Job.
INDEX = "JOB_COMPLETION_INDEX"
#: Host of node 0 if it is not `<job>-0.<service>`.
HOST = "TUNEYARD_RENDEZVOUS_HOST"
PORT = "TUNEYARD_RENDEZVOUS_PORT"
_DEFAULT_PORT = 29500


def node_count() -> int:
    """The number of nodes of this stage."""
    return int(os.environ.get(COUNT, "1"))


def node_index() -> int:
    """0 for the first node, which alone reports and commits."""
    return int(os.environ.get(INDEX, "0")) if node_count() > 1 else 0


def rendezvous_address() -> tuple[str, int]:
    """Host and port of node 0's rendezvous. Raises Failure(USAGE) if the environment does not name them."""
    port = int(os.environ.get(PORT, _DEFAULT_PORT))
    if host := os.environ.get(HOST):
        return host, port
    service = os.environ.get(SERVICE)
    own = socket.gethostname()
    job = re.fullmatch(r"(.+)-\d+", own)
    if not service or not job:
        raise Failure(
            Reason.USAGE,
            f"no address of node 0 (of {node_count()}): host name '{own}', service '{service or ''}'",
            where=SERVICE,
            next_step=f"run it as an Indexed Job with {SERVICE}, or set {HOST}",
        )
    return f"{job[1]}-0.{service}", port
