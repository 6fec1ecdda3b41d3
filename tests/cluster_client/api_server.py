"""A fake API server on loopback: scripted answers, recorded requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any] | None


@dataclass
class Reply:
    """One answer. `chunks` are streamed as they come; `cut` ends the connection without a proper end."""

    status: int = 200
    body: Any = None
    headers: Iterable[tuple[str, str]] = ()
    chunks: Iterable[bytes] | None = None
    cut: bool = False


Answering = Callable[[Asked], Reply]


@dataclass
class ApiServer:
    """`answer` decides; it may be replaced at any time. `asked` holds the requests in order."""

    answer: Answering
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> ApiServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, method: str, end_of_path: str = "") -> int:
        return sum(1 for a in list(self.asked) if a.method == method and a.path.endswith(end_of_path))


def scripted(*replies: Reply) -> Answering:
    """These answers in turn; the last one for ever."""
    left = list(replies)
    lock = threading.Lock()

    def answer(_: Asked) -> Reply:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return answer


def status(code: int, reason: str, message: str, **details: Any) -> Reply:
    """An error answer as the API server gives it."""
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return Reply(code, {**body, "details": details})


def listing(version: str, *items: dict[str, Any]) -> Reply:
    return Reply(body={"metadata": {"resourceVersion": version}, "items": list(items)})


def event(happened: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": happened, "object": item}).encode() + b"\n"


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            split = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            asked = Asked(self.command, split.path, query, dict(self.headers.items()), body)
            server.asked.append(asked)
            self._send(server.answer(asked))

        def _send(self, reply: Reply) -> None:
            if reply.cut and reply.chunks is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            if reply.chunks is None:
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for chunk in reply.chunks:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    self.wfile.flush()
                if reply.cut:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True  # the client has gone

        def log_message(self, *_: Any) -> None:
            pass

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    return Handler
