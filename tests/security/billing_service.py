"""A hosted service that bills: answers as long as allowed, lost responses that are billed all the same, a total."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

#: Dollars per million tokens, as in the launcher's catalogue: input, output, and training.
PRICES = {"gpt-4.1": (2.0, 8.0), "ft:gpt-3.5-turbo-0613": (12.0, 16.0), "gpt-3.5-turbo-0613": (8.0,)}


class BillingService:
    """`lose_every` N: the response to every Nth chat completion is lost after it was billed. 0: none is."""

    def __init__(self, *, lose_every: int = 0) -> None:
        self.usd = 0.0
        self.jobs: list[dict[str, Any]] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.completions = 0
        self.lost = 0
        self._lose_every = lose_every
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(service._get(urlparse(self.path).path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                value = service._post(urlparse(self.path).path, body, self.headers.get("Content-Type", ""))
                if value is None:
                    self.close_connection = True
                    return
                self._send(value)

            def _send(self, value: dict[str, Any]) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def _get(self, path: str) -> dict[str, Any]:
        if path.endswith(("/events", "/batches")):
            return {"object": "list", "data": [], "has_more": False}
        if path.endswith("/files"):
            found = [
                {"id": name, "object": "file", "filename": filename, "bytes": len(data), "created_at": 1}
                for name, (filename, data) in self.files.items()
            ]
            return {"object": "list", "data": found, "has_more": False}
        if path.endswith("/jobs"):
            return {"object": "list", "data": self.jobs, "has_more": False}
        (job,) = [one for one in self.jobs if path.endswith(one["id"])]
        return job

    def _post(self, path: str, body: bytes, kind: str) -> dict[str, Any] | None:
        with self._lock:
            if path.endswith("/files"):
                return self._upload(body, kind)
            document = json.loads(body)
            return self._job(document) if path.endswith("/jobs") else self._complete(document)

    def _upload(self, body: bytes, kind: str) -> dict[str, Any]:
        boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
        parts = [part for part in body.split(boundary) if b"filename=" in part]
        head, _, data = parts[0].partition(b"\r\n\r\n")
        match = re.search(rb'filename="([^"]*)"', head)
        assert match is not None
        name = f"file-{next(self._ids)}"
        self.files[name] = (match[1].decode(), data.removesuffix(b"\r\n"))
        return {
            "id": name,
            "object": "file",
            "filename": match[1].decode(),
            "bytes": len(self.files[name][1]),
        }

    def _job(self, document: dict[str, Any]) -> dict[str, Any]:
        rows = [json.loads(line) for line in self.files[document["training_file"]][1].splitlines()]
        epochs = document["method"]["supervised"]["hyperparameters"]["n_epochs"]
        words = sum(len(one["content"].split()) for row in rows for one in row["messages"])
        tokens = words * int(epochs)
        self.usd += tokens * PRICES[document["model"]][0] / 1e6
        job = {
            **{key: document.get(key) for key in ("model", "metadata", "training_file", "seed")},
            "id": f"ftjob-{next(self._ids)}",
            "object": "fine_tuning.job",
            "created_at": 1,
            "status": "succeeded",
            "fine_tuned_model": f"ft:{document['model']}:{len(self.jobs)}",
            "trained_tokens": tokens,
            "hyperparameters": {"n_epochs": epochs},
            "result_files": [],
            "organization_id": "org",
        }
        self.jobs.append(job)
        return job

    def _complete(self, document: dict[str, Any]) -> dict[str, Any] | None:
        self.completions += 1
        prompt = 10 + sum(len(one["content"]) // 4 for one in document["messages"])
        written = document["max_tokens"]
        model = ":".join(document["model"].split(":")[:2])
        price = PRICES[model]
        self.usd += (prompt * price[0] + written * price[1]) / 1e6
        if self._lose_every and self.completions % self._lose_every == 0:
            self.lost += 1
            return None
        message = {"role": "assistant", "content": "SELECT 1"}
        return {
            "id": f"chatcmpl-{self.completions}",
            "object": "chat.completion",
            "created": 1,
            "model": document["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": written,
                "total_tokens": prompt + written,
            },
        }


@contextmanager
def billing(**options: Any) -> Iterator[BillingService]:
    """A service that runs until the context ends."""
    one = BillingService(**options)
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()
        thread.join()
