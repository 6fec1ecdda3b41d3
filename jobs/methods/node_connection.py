"""A TCP connection between two nodes of one stage: JSON lines, and a ping every second.

A peer that sends nothing for `TIMEOUT_S` is lost. If only its process dies, its kernel closes the
connection and the loss shows at once.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass

from launcher.outcome import Failure

TIMEOUT_S = 20.0
_PING_INTERVAL_S = 1.0
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Hello:
    """A client introduces itself."""

    node: int
    stage_key: str

    def to_json(self) -> dict[str, object]:
        return {"kind": "hello", "node": self.node, "stage": self.stage_key}


@dataclass(frozen=True)
class Begin:
    """All nodes are connected; all continue from this checkpoint (None: from the start)."""

    checkpoint: str | None

    def to_json(self) -> dict[str, object]:
        return {"kind": "begin", "checkpoint": self.checkpoint}


@dataclass(frozen=True)
class ClientFailed:
    """A client's stage ended before the commit."""

    failure: Failure

    def to_json(self) -> dict[str, object]:
        return {"kind": "failed", "failure": self.failure.to_json()}


@dataclass(frozen=True)
class ServerEnded:
    """Node 0 committed the outputs, or failed."""

    failure: Failure | None

    def to_json(self) -> dict[str, object]:
        return {"kind": "ended", "failure": self.failure.to_json() if self.failure else None}


Message = Hello | Begin | ClientFailed | ServerEnded


def _parse(line: bytes) -> Message | None:
    """The message in a line; None for a ping. Raises ValueError if it is malformed."""
    try:
        value = json.loads(line)
        kind = value["kind"]
        if kind == "ping":
            return None
        if kind == "hello":
            return Hello(int(value["node"]), str(value["stage"]))
        if kind == "begin":
            return Begin(None if value["checkpoint"] is None else str(value["checkpoint"]))
        if kind == "failed":
            return ClientFailed(Failure.from_json(value["failure"]))
        if kind == "ended":
            return ServerEnded(Failure.from_json(value["failure"]) if value["failure"] else None)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("malformed message") from error
    raise ValueError(f"unknown kind of message: {kind}")


class NodeConnection:
    """Non-blocking; `lost` is true after the peer closed it, was silent too long or sent something malformed."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        connection.setblocking(False)
        self.name = name
        self.lost = False
        #: The peer reported that it was asked to stop: the end of its connection is expected.
        self.stopped = False
        self._connection = connection
        self._received_at = time.monotonic()
        self._sending = threading.Lock()
        self._pending = b""
        # In a thread, so that a blocking store call does not look like a lost node.
        threading.Thread(target=self._ping, daemon=True, name="tuneyard-ping").start()

    def _ping(self) -> None:
        while not self.lost:
            self._send({"kind": "ping"})
            time.sleep(_PING_INTERVAL_S)

    def send(self, message: Message) -> None:
        """Send a message of a few bytes. A lost peer shows in `lost`, not as an exception."""
        self._send(message.to_json())

    def _send(self, value: dict[str, object]) -> None:
        try:
            with self._sending:
                self._connection.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            self.lost = True

    def receive(self) -> list[Message]:
        """The messages that arrived since the last call."""
        try:
            while data := self._connection.recv(1 << 16):
                self._pending += data
                self._received_at = time.monotonic()
            self.lost = True
        except BlockingIOError:
            self.lost = self.lost or time.monotonic() - self._received_at > TIMEOUT_S
        except OSError:
            self.lost = True
        *lines, self._pending = self._pending.split(b"\n")
        try:
            if len(self._pending) > _MAX_LINE_BYTES:
                raise ValueError("line too long")
            return [message for line in lines if (message := _parse(line)) is not None]
        except ValueError:
            self.lost = True
            return []

    def close(self) -> None:
        self.lost = True
        self._connection.close()
