"""A model hub with the endpoints of a snapshot download; its files are a dictionary."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub with one repository. `requests` lists the paths requested; `token`, if given, is required."""

    def __init__(self, repository: str, kind: str, files: dict[str, bytes], token: str | None = None) -> None:
        self.repository, self.kind, self.files, self.token = repository, kind, files, token
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                hub._answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub._answer(self, with_body=False)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = unquote(urlparse(handler.path).path)
        self.requests.append(path)
        prefix = "" if self.kind == "models" else f"/{self.kind}"
        api, resolve = f"/api/{self.kind}/{self.repository}", f"{prefix}/{self.repository}/resolve/{COMMIT}/"
        authorised = self.token is None or handler.headers.get("Authorization") == f"Bearer {self.token}"
        headers = {"X-Repo-Commit": COMMIT}
        if not authorised:
            return self._send(handler, 401, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
        if path in (api, f"{api}/revision/{COMMIT}"):
            return self._send(handler, 200, json.dumps(self._info()).encode(), headers, with_body)
        if path.startswith(f"{api}/tree/{COMMIT}"):
            return self._send(handler, 200, json.dumps(self._tree()).encode(), headers, with_body)
        if path.startswith(f"{api}/revision/"):
            return self._send(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
        if path.startswith(resolve) and (data := self.files.get(path.removeprefix(resolve))) is not None:
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            return self._send(handler, 200, data, headers, with_body)
        code = "EntryNotFound" if self.repository in path else "RepoNotFound"
        return self._send(handler, 404, b"", {"X-Error-Code": code}, with_body)

    def _info(self) -> dict[str, object]:
        siblings = [{"rfilename": name, "size": len(data)} for name, data in self.files.items()]
        return {"id": self.repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}

    def _tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.files.items()
        ]

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str], with_body: bool
    ) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if with_body:
            handler.wfile.write(body)
