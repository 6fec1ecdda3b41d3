"""Hostile requests to the rehearsal server: schemathesis with its OpenAPI description, and malformed input."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import Server, upload_of

from jobs.rehearsal import openapi

KEY = "sk-test-one"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("hostile"), {KEY: "one", "sk-test-two": "two"})
    one.start()
    yield one
    one.kill()


#: Endpoints of the protocol.
ENDPOINTS = {
    "/v1/files": ["get", "post"],
    "/v1/files/{id}": ["get", "delete"],
    "/v1/files/{id}/content": ["get"],
    "/v1/models": ["get"],
    "/v1/models/{id}": ["get", "delete"],
    "/v1/fine_tuning/jobs": ["get", "post"],
    "/v1/fine_tuning/jobs/{id}": ["get"],
    "/v1/fine_tuning/jobs/{id}/events": ["get"],
    "/v1/fine_tuning/jobs/{id}/checkpoints": ["get"],
    "/v1/fine_tuning/jobs/{id}/cancel": ["post"],
    "/v1/fine_tuning/jobs/{id}/pause": ["post"],
    "/v1/fine_tuning/jobs/{id}/resume": ["post"],
    "/v1/chat/completions": ["post"],
    "/v1/batches": ["get", "post"],
    "/v1/batches/{id}": ["get"],
    "/v1/batches/{id}/cancel": ["post"],
}
OPERATIONS = [(method, path) for path, methods in sorted(ENDPOINTS.items()) for method in methods]


@pytest.fixture(scope="module")
def schema(server: Server) -> schemathesis.schemas.BaseSchema:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_generated_request_is_a_server_error(
    schema: schemathesis.schemas.BaseSchema, method: str, path: str
) -> None:
    modes = list(schemathesis.GenerationMode)

    @given(data=st.data())
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def holds(data: st.DataObject) -> None:
        operation = schema[path][method.upper()]
        mode = data.draw(st.sampled_from(modes))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"}, checks=CHECKS, timeout=30)

    holds()


def ask(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    named = {"authorization": f"Bearer {KEY}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    try:
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/..%2f..%2fkeys/content",
        "/v1/files/%2fetc%2fpasswd/content",
        "/v1/files/file-1%00/content",
        "/v1/fine_tuning/jobs/..%2F../events",
        "/v1/nothing",
        "//etc/passwd",
    ],
)
def test_paths_cannot_traverse_the_file_system(server: Server, path: str) -> None:
    status, body = ask(server, "GET", path)
    assert status == 404
    assert b"root:" not in body


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b'"x"', b"[" * 50_000, b'{"model": NaN}', b"\xff\xfe", b'{"model": 1e999}'],
)
def test_malformed_bodies_are_refused(server: Server, body: bytes) -> None:
    for path in ("/v1/fine_tuning/jobs", "/v1/chat/completions", "/v1/batches"):
        status, answer = ask(server, "POST", path, body, content_type="application/json")
        assert status == 400
        assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_body_over_the_size_limit_is_refused(server: Server) -> None:
    status, _ = ask(
        server, "POST", "/v1/chat/completions", b" " * (17 << 20), content_type="application/json"
    )
    assert status == 413


def upload(name: str, purpose: str = "fine-tune", data: bytes = b"{}\n") -> tuple[bytes, str]:
    head = f'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n--x\r\n'
    head += f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


@pytest.mark.parametrize("name", ["../../evil.jsonl", "/etc/cron.d/evil.jsonl", "a\\..\\b.jsonl", "é.jsonl"])
def test_file_name_is_never_a_path(server: Server, name: str) -> None:
    body, kind = upload(name)
    status, answer = ask(server, "POST", "/v1/files", body, content_type=kind)
    assert status == 200
    file_id = json.loads(answer)["id"]
    assert (server.root / "state" / "files" / file_id).read_bytes() == b"{}\n"
    assert not list(server.root.parent.rglob("evil.jsonl"))


def test_upload_without_purpose_or_file_is_refused(server: Server) -> None:
    for body, kind in (
        upload("a.jsonl", "theft"),
        (b"", "multipart/form-data; boundary=x"),
        (b"x", "text/plain"),
    ):
        assert ask(server, "POST", "/v1/files", body, content_type=kind)[0] == 400


def test_tenants_are_isolated(server: Server) -> None:
    body, kind = upload("mine.jsonl")
    file_id = json.loads(ask(server, "POST", "/v1/files", body, content_type=kind)[1])["id"]
    theirs = {"authorization": "Bearer sk-test-two"}
    for method, path in (
        ("GET", f"/v1/files/{file_id}"),
        ("GET", f"/v1/files/{file_id}/content"),
        ("DELETE", f"/v1/files/{file_id}"),
    ):
        assert ask(server, method, path, **theirs)[0] == 404
    assert file_id.encode() not in ask(server, "GET", "/v1/files", **theirs)[1]
    request = json.dumps({"model": "gpt-3.5-turbo-0613", "training_file": file_id}).encode()
    assert ask(server, "POST", "/v1/fine_tuning/jobs", request, **theirs)[0] == 400
    assert ask(server, "GET", f"/v1/files/{file_id}")[0] == 200


def test_only_the_description_needs_no_key(server: Server) -> None:
    for path in ("/v1/models", "/", "/rehearsal/counters", "/v1/nothing"):
        assert ask(server, "GET", path, authorization="")[0] == 401
    assert ask(server, "GET", "/openapi.json", authorization="")[0] == 200


def test_status_page_shows_jobs_with_loss_curves(make_server: Callable[..., Server]) -> None:
    server = make_server(keys={KEY: "one", "sk-test-two": "two"})
    client = server.client()
    file = client.files.create(file=("t.jsonl", upload_of(12)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo-0613", training_file=file.id)
    while client.fine_tuning.jobs.retrieve(job.id).status != "succeeded":
        pass
    basic = base64.b64encode(f"anybody:{KEY}".encode()).decode()
    status, page = ask(server, "GET", "/", authorization=f"Basic {basic}")
    assert status == 200
    for shown in (job.id, "succeeded", '<polyline class="train"', "over 96 steps"):
        assert shown.encode() in page
    assert job.id.encode() not in ask(server, "GET", "/", authorization="Bearer sk-test-two")[1]


def test_status_page_escapes_client_text(make_server: Callable[..., Server]) -> None:
    server = make_server(keys={KEY: "one"})
    client = server.client()
    bad = b'{"messages": [{"role": "<script>alert(1)</script>", "content": "x"}]}\n'
    file = client.files.create(file=("t.jsonl", bad), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo-0613", training_file=file.id)
    while client.fine_tuning.jobs.retrieve(job.id).status != "failed":
        pass
    status, page = ask(server, "GET", "/")
    assert status == 200
    assert job.id.encode() in page
    assert b"<script>" not in page


def test_openapi_describes_every_endpoint(server: Server) -> None:
    document = json.loads(ask(server, "GET", "/openapi.json")[1])
    assert document["openapi"].startswith("3.1")
    described = {path: sorted(methods) for path, methods in document["paths"].items()}
    assert described == {path: sorted(methods) for path, methods in ENDPOINTS.items()}
    assert "CreateJob" in document["components"]["schemas"]
    assert openapi.describe([])["paths"] == {}
