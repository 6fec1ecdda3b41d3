"""The Kubernetes API as plain requests and dictionaries, for setup and checks of tests.

Not the product's client (launcher/targets/cluster): with it, a test could not see the mistakes of the
code under test.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError, NewConnectionError

JSON_PATCH = "application/json-patch+json"


class ApiError(Exception):
    """An error response of the API: `status` is the HTTP status."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class Api:
    """Requests by path (`/api/v1/…`), answers as dictionaries.

    A request to an unreachable server is retried for `retry_s`; then urllib3's error is raised.
    """

    def __init__(self, kubeconfig: Path, retry_s: float = 30) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        settings.retries = False
        self._client = client.ApiClient(settings)
        self._host = settings.host.rstrip("/")
        self._retry_s = retry_s

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float = 30,
    ) -> bytes:
        """The body of the response. Raises ApiError."""
        if not content_type.endswith("json"):
            body = json.dumps(body)
        deadline = time.monotonic() + self._retry_s
        while True:
            try:
                status, data = self._send(method, path, body, content_type, timeout_s)
            except (HTTPError, OSError) as error:
                # A request with side effects is repeated only if the connection was never made.
                if not (method == "GET" or isinstance(error, NewConnectionError)):
                    raise
                if time.monotonic() > deadline:
                    raise
            else:
                if 200 <= status <= 299:
                    return data
                if status not in (429, 503) or time.monotonic() > deadline:
                    raise ApiError(status, data.decode(errors="replace")[:2000])
            time.sleep(0.2)

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def create(self, path: str, body: dict[str, Any]) -> Any:
        return json.loads(self.request("POST", path, body))

    def apply(self, path: str, body: dict[str, Any]) -> Any:
        """Server-side apply."""
        named = f"{path}?fieldManager=tuneyard-tests&force=true"
        return json.loads(self.request("PATCH", named, body, "application/apply-patch+yaml"))

    def patch(self, path: str, body: Any, content_type: str = "application/merge-patch+json") -> Any:
        return json.loads(self.request("PATCH", path, body, content_type))

    def delete(self, path: str) -> None:
        """Delete in the background; a missing object is no error."""
        try:
            self.request("DELETE", path, {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    def ready(self) -> bool:
        """Whether the API server reports that it is ready."""
        try:
            return self._send("GET", "/readyz", None, "application/json", 2) == (200, b"ok")
        except (HTTPError, OSError):
            return False

    def _send(
        self, method: str, path: str, body: Any, content_type: str, timeout_s: float
    ) -> tuple[int, bytes]:
        headers = {"Accept": "*/*", "Content-Type": content_type}
        token = self._client.configuration.auth_settings().get("BearerToken")
        if token:
            headers[token["key"]] = token["value"]
        answer = self._client.call_api(
            method, self._host + path, headers, body=body, _request_timeout=timeout_s
        )
        return answer.status, answer.read()
