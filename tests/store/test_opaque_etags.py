"""Buckets with SSE-KMS or SSE-C: the ETags of their parts are no MD5s."""

from __future__ import annotations

import http.client
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from places import QUICK, content_of
from s3_servers import Server

from launcher.outcome import Failure
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store

Files = Callable[[dict[str, bytes]], Path]
MIB = 1 << 20
_ETAG = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@contextmanager
def opaque_etags(upstream: int, *, completes: bool = True) -> Iterator[tuple[int, list[str]]]:
    """A proxy before moto whose ETags are MD5s reversed, and which completes an upload by those only.

    Yields its port and the list of the requests that it saw.
    """
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def forward(self) -> None:
            if self.headers.get("Expect"):
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(f"{self.command} {self.path}")
            if self.command == "POST" and "uploadId=" in self.path:
                body = _ETAG.sub(lambda match: match[0][::-1], body)
            sent = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            server = http.client.HTTPConnection("127.0.0.1", upstream)
            if self.command == "POST" and "uploadId=" in self.path and not completes:
                status, headers, answer = 400, [], b"<Error><Code>InvalidPart</Code></Error>"
            else:
                sent["Content-Length"] = str(len(body))
                server.request(self.command, self.path, body, sent)
                got = server.getresponse()
                status, headers, answer = got.status, got.getheaders(), got.read()
            server.close()
            if b"<ETag>" in answer:
                answer = re.sub(
                    rb"<ETag>.*?</ETag>", lambda tag: _ETAG.sub(lambda m: m[0][::-1], tag[0]), answer
                )
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() == "etag":
                    value = _ETAG.sub(lambda match: match[0][::-1], value.encode()).decode()
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = {name.lower(): value for name, value in headers}.get("content-length", "0")
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _address(server: Server, port: int, **limits: float) -> S3Address:
    bucket = f"opaque-{random.randrange(10**9)}"
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("PUT", f"/{bucket}")
    assert connection.getresponse().status == 200
    address = S3Address(bucket, "some/prefix", endpoint_url=f"http://127.0.0.1:{port}")
    return address.with_limits(**{**QUICK, **limits})


def test_a_multipart_upload_is_completed_with_the_etags_that_the_server_returned(
    servers: Callable[[str], Server], files: Files, tmp_path: Path
) -> None:
    content = {"large": random.Random(1).randbytes(11 * MIB)}
    server = servers("moto")
    with opaque_etags(server.port) as (port, _):
        address = _address(server, port)
        S3Store(address).commit("stages/k", files(content), {})
        reader = S3Store(address, state=tmp_path / "other", cache=tmp_path / "other-cache")
        assert content_of(reader, "stages/k") == content


def test_an_upload_resumes_where_etags_are_no_md5s(
    servers: Callable[[str], Server], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"large": random.Random(1).randbytes(23 * MIB)}
    server = servers("moto")
    with opaque_etags(server.port) as (port, seen):
        address = _address(server, port, parallel=1)
        first = S3Store(address)
        put_part = first.client.put_part

        def die_at_the_fourth(key: str, upload: str, number: int, data: bytes, digest: str) -> str:
            if number == 4:
                raise KeyboardInterrupt
            return put_part(key, upload, number, data, digest)

        monkeypatch.setattr(first.client, "put_part", die_at_the_fourth)
        directory = files(content)
        with pytest.raises(KeyboardInterrupt):
            first.commit("stages/k", directory, {})
        del seen[:]
        second = S3Store(address)
        second.commit("stages/k", directory, {})
        sent = [request for request in seen if request.startswith("PUT") and "partNumber=" in request]
        assert [re.findall(r"partNumber=(\d+)", request) for request in sent] == [["4"], ["5"]]
        assert content_of(second, "stages/k") == content


def test_a_bucket_that_cannot_complete_a_multipart_upload_is_refused_when_it_is_opened(
    servers: Callable[[str], Server],
) -> None:
    server = servers("moto")
    with (
        opaque_etags(server.port, completes=False) as (port, _),
        pytest.raises(Failure, match="cannot store an object in two parts"),
    ):
        S3Store(_address(server, port))
