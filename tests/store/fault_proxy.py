"""A proxy between a client and an S3 server that does what networks and servers do on bad days, by a seed.

It understands just enough HTTP to know where a request and its answer begin and end. What it
does to a request is drawn from its seed, request by request; `done` counts what it did.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

#: Every fault it knows. `…_request`: the server never has the whole request; `…_answer`: it has acted on it.
FAULTS = (
    "cut_request",
    "cut_answer",
    "busy",
    "slow_down",
    "stall",
    "drip",
    "wrong_write",
    "wrong_read",
    "shorter_answer",
    "clock_skew",
    "expired",
    "disk_full",
    "refuse",
)
_ANSWERS = {
    "busy": (503, "ServiceUnavailable"),
    "slow_down": (503, "SlowDown"),
    "clock_skew": (403, "RequestTimeTooSkewed"),
    "expired": (400, "ExpiredToken"),
    "disk_full": (507, "XMinioStorageFull"),
}


@dataclass
class Message:
    """A request or an answer as it came over the wire."""

    head: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.head + self.body


@dataclass
class FaultProxy:
    """Listens on a loopback port from `start` to `stop`."""

    upstream: int
    seed: int
    #: Chance of a fault per request.
    rate: float
    faults: tuple[str, ...] = FAULTS
    #: How long a stall or a drip lasts at least.
    stall_s: float = 1.0
    #: Decides instead of the seed: given the request's head, a fault or None.
    script: Callable[[bytes], str | None] | None = None
    done: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    port: int = 0
    _stopped: bool = False

    def start(self) -> FaultProxy:
        self._chance = random.Random(self.seed)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(0.2)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped = True
        self._listener.close()
        self._thread.join(5)

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while not self._stopped:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(30)
            with socket.create_connection(("127.0.0.1", self.upstream), timeout=30) as server:
                while not self._stopped:
                    request = read_message(client)
                    if request is None or not self._pass_on(client, server, request):
                        return

    def _draw(self, request: Message) -> tuple[str | None, random.Random]:
        with self._lock:
            self.requests += 1
            own = random.Random(self._chance.random())
        if self.script is not None:
            return self.script(request.head), own
        return (own.choice(self.faults) if own.random() < self.rate else None), own

    def _pass_on(self, client: socket.socket, server: socket.socket, request: Message) -> bool:
        """One request and its answer, with at most one fault; False when the connection is over."""
        fault, chance = self._draw(request)
        if fault is not None:
            with self._lock:
                self.done[fault] += 1
        if fault == "refuse":
            return False
        if fault in _ANSWERS:
            client.sendall(error_answer(*_ANSWERS[fault]))
            return True
        if fault == "cut_request":
            server.sendall(request.raw[: chance.randrange(len(request.raw))])
            return False
        if fault == "wrong_write" and request.body:
            request = Message(request.head, flip(request.body, chance))
        server.sendall(request.raw)
        answer = read_message(server, head_only=request.head.startswith(b"HEAD"))
        if answer is None:
            return False
        return self._answer(client, answer, fault, chance)

    def _answer(
        self, client: socket.socket, answer: Message, fault: str | None, chance: random.Random
    ) -> bool:
        if fault == "cut_answer":
            client.sendall(answer.raw[: chance.randrange(len(answer.raw))])
            return False
        if fault == "stall":
            time.sleep(self.stall_s)
        if fault == "drip":
            end = time.monotonic() + self.stall_s
            for byte in answer.raw:
                if time.monotonic() > end:
                    return False
                client.sendall(bytes([byte]))
                time.sleep(0.02)
            return True
        if fault == "wrong_read" and answer.body:
            answer = Message(answer.head, flip(answer.body, chance))
        if fault == "shorter_answer" and len(answer.body) > 1 and b"chunked" not in answer.head.lower():
            kept = chance.randrange(len(answer.body))
            answer = Message(with_length(answer.head, kept), answer.body[:kept])
        client.sendall(answer.raw)
        return b"connection: close" not in answer.head.lower()


def flip(data: bytes, chance: random.Random) -> bytes:
    """One bit other than it was."""
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def with_length(head: bytes, length: int) -> bytes:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([lines[0], b"Content-Length: %d" % length, *lines[1:]])


def error_answer(status: int, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    head = (
        f"HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_message(stream: socket.socket, *, head_only: bool = False, data: bytes = b"") -> Message | None:
    """The next message, or None where the other side has closed. Raises OSError where it breaks off."""
    while b"\r\n\r\n" not in data:
        chunk = stream.recv(65536)
        if not chunk:
            if data:
                raise ConnectionError("broken off")
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    status = head.split(b" ", 2)[1]
    if head.startswith(b"HTTP/") and status == b"100":
        return read_message(stream, head_only=head_only, data=body)
    if head_only or (head.startswith(b"HTTP/") and status in (b"204", b"304")):
        return Message(head, b"")
    if fields.get(b"expect", b"").lower() == b"100-continue":
        stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts = [body]
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        while not (joined := b"".join(parts)).endswith(b"0\r\n\r\n"):
            parts = [joined, _more(stream)]
        return Message(head, joined)
    missing = int(fields.get(b"content-length", b"0")) - len(body)
    while missing > 0:
        parts.append(_more(stream))
        missing -= len(parts[-1])
    return Message(head, b"".join(parts))


def _more(stream: socket.socket) -> bytes:
    chunk = stream.recv(1 << 20)
    if not chunk:
        raise ConnectionError("broken off")
    return chunk
