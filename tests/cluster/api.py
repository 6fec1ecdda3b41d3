"""The Kubernetes API as plain requests and dictionaries, for the tests' own arrangements and checks.

Deliberately not the product's client (launcher/cluster): a test that looked through what it tests
could not see its mistakes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes.client.exceptions import ApiException

JSON_PATCH = "application/json-patch+json"


class Refused(Exception):
    """The API's answer where it is an error: `status` (HTTP) and what it said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class Api:
    """Requests by path (`/api/v1/…`), answers as dictionaries. Connection errors pass unchanged."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = config.new_client_from_config(str(kubeconfig))
        self._client.configuration.retries = 0

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float = 30,
    ) -> bytes:
        headers = {"Accept": "*/*", "Content-Type": content_type}
        auth = self._client.configuration.auth_settings().get("BearerToken")
        if auth:
            headers[auth["key"]] = auth["value"]
        if not content_type.endswith("json"):
            body = json.dumps(body)
        url = self._client.configuration.host.rstrip("/") + path
        try:
            answer = self._client.call_api(method, url, headers, body=body, _request_timeout=timeout_s)
        except ApiException as error:
            raise Refused(error.status or 0, str(error.body)[:2000]) from None
        data: bytes = answer.read()
        if not 200 <= answer.status <= 299:
            raise Refused(answer.status, data.decode(errors="replace")[:2000])
        return data

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
        """Delete in the background; nothing where it was not there."""
        try:
            self.request("DELETE", path, {"propagationPolicy": "Background"})
        except Refused as refused:
            if refused.status != 404:
                raise

    def ready(self) -> bool:
        """Whether the API server answers that it is ready."""
        try:
            return self.request("GET", "/readyz", timeout_s=2) == b"ok"
        except Exception:  # Whatever a server says or does not say while it starts: not ready.
            return False
