"""Requests: transient errors are retried, final ones become failures, and no secret is in a message."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from launcher.outcome import Failure, Reason
from launcher.targets.cluster.api_errors import KubernetesApiError
from launcher.targets.cluster.client import Cluster, Conflict
from tests.cluster_client.api_server import ApiServer, Asked, Reply, scripted, status
from tests.cluster_client.conftest import TOKEN

Connect = Callable[..., Cluster]
LABELS = {"tuneyard.dev/manifest": "3f9a1", "tuneyard.dev/run": "sql-1"}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "train", "labels": LABELS, "ownerReferences": [{"uid": "u1"}]},
}
MISSING = status(404, "NotFound", 'jobs.batch "train" not found')
TAKEN = status(409, "AlreadyExists", 'jobs.batch "train" already exists')


def raised(call: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        call()
    assert TOKEN not in caught.value.text() + repr(caught.value)
    return caught.value


def test_request_method_query_and_headers(server: ApiServer, connect: Connect) -> None:
    server.answer = scripted(Reply(201, JOB))
    cluster = connect()
    cluster.create(JOB, dry_run=True)
    cluster.apply(JOB)
    assert cluster.delete("Job", "train")
    created, applied, deleted = server.asked
    assert created.path == "/apis/batch/v1/namespaces/team/jobs"
    assert created.query == {"fieldManager": "launcher", "fieldValidation": "Strict", "dryRun": "All"}
    assert created.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (applied.method, applied.path) == ("PATCH", "/apis/batch/v1/namespaces/team/jobs/train")
    assert applied.headers["Content-Type"] == "application/apply-patch+yaml"
    assert "force" not in applied.query
    assert deleted.body == {"propagationPolicy": "Background"}
    assert cluster.requests == 3


def test_warning_headers_are_returned(server: ApiServer, connect: Connect) -> None:
    two = [
        ("Warning", '299 - "would violate \\"restricted\\"", 299 - "second"'),
        ("Warning", '299 - "third"'),
    ]
    server.answer = scripted(Reply(201, JOB, headers=two))
    assert connect().apply(JOB).warnings == ('would violate "restricted"', "second", "third")


@pytest.mark.parametrize(
    "trouble",
    [
        status(429, "TooManyRequests", "slow down"),
        status(500, "InternalError", "etcdserver: leader changed"),
        Reply(503, b"<html>bad gateway"),
        Reply(cut=True),
        status(409, "Conflict", "Operation cannot be fulfilled on resourcequotas: it has been modified"),
    ],
)
def test_transient_error_is_retried(server: ApiServer, connect: Connect, trouble: Reply) -> None:
    server.answer = scripted(trouble, trouble, Reply(201, JOB))
    assert connect(10.0).create(JOB).object == JOB
    assert len(server.asked) == 3


def test_retry_after_is_respected(server: ApiServer, connect: Connect) -> None:
    busy = Reply(429, {}, headers=[("Retry-After", "1")])
    server.answer = scripted(busy, Reply(200, JOB))
    began = time.monotonic()
    assert connect().get("Job", "train") == JOB
    assert time.monotonic() - began >= 1.0


def test_retries_end_after_the_timeout(server: ApiServer, connect: Connect) -> None:
    server.answer = scripted(Reply(503, b""))
    failure = raised(lambda: connect(0.5).get("Job", "train"))
    assert failure.reason is Reason.NETWORK
    assert server.url in failure.where


def test_unreachable_server_is_a_network_failure(server: ApiServer, connect: Connect) -> None:
    cluster = connect(0.3)
    server.__exit__()
    failure = raised(lambda: cluster.list("Pod"))
    server.__enter__()
    assert failure.reason is Reason.NETWORK
    assert "connection refused" in failure.what


def created_despite_a_lost_answer(existing: dict[str, Any]) -> Callable[[Asked], Reply]:
    tries = scripted(Reply(cut=True), TAKEN)

    def answer(asked: Asked) -> Reply:
        return tries(asked) if asked.method == "POST" else Reply(200, existing)

    return answer


def test_forbidden_is_retried_right_after_an_outage(server: ApiServer, connect: Connect) -> None:
    forbidden = status(403, "Forbidden", 'User "bob" cannot get resource "jobs" in API group "batch"')
    server.answer = scripted(Reply(cut=True), forbidden, forbidden, Reply(200, JOB))
    assert connect(10.0).get("Job", "train") == JOB


def test_create_with_a_lost_answer_finds_its_own_object(server: ApiServer, connect: Connect) -> None:
    server.answer = created_despite_a_lost_answer(JOB)
    assert connect().create(JOB).object == JOB


@pytest.mark.parametrize(
    "foreign",
    [
        {**JOB, "metadata": {**JOB["metadata"], "labels": {**LABELS, "tuneyard.dev/manifest": "00000"}}},
        {**JOB, "metadata": {**JOB["metadata"], "ownerReferences": [{"uid": "u2"}]}},
    ],
)
def test_create_with_a_lost_answer_rejects_a_foreign_object(
    server: ApiServer, connect: Connect, foreign: dict[str, Any]
) -> None:
    server.answer = created_despite_a_lost_answer(foreign)
    with pytest.raises(Conflict):
        connect().create(JOB)


def test_create_of_a_taken_name_is_a_conflict(server: ApiServer, connect: Connect) -> None:
    server.answer = scripted(TAKEN)
    with pytest.raises(Conflict):
        connect().create(JOB)
    assert len(server.asked) == 1


def test_get_of_an_absent_object_is_none(server: ApiServer, connect: Connect) -> None:
    server.answer = scripted(MISSING)
    assert connect().get("Job", "train") is None
    assert connect().delete("Job", "train") is False


def test_delete_keeps_an_object_with_another_uid(server: ApiServer, connect: Connect) -> None:
    server.answer = scripted(
        status(409, "Conflict", "Precondition failed: UID in precondition: u1, in object: u2")
    )
    assert connect().delete("Job", "train", uid="u1") is False
    assert len(server.asked) == 1
    assert server.asked[0].body == {"propagationPolicy": "Background", "preconditions": {"uid": "u1"}}


def test_delete_with_a_lost_answer_counts_as_deleted(server: ApiServer, connect: Connect) -> None:
    server.answer = scripted(Reply(cut=True), MISSING)
    assert connect().delete("Job", "train") is True


REFUSALS = [
    (
        status(403, "Forbidden", 'jobs.batch is forbidden: User "bob" cannot create resource '
               '"jobs" in API group "batch" in the namespace "team"'),
        "forbidden", Reason.UNAUTHORIZED, "bob may not create jobs.batch in namespace team",
    ),
    (
        status(403, "Forbidden", 'pods "x" is forbidden: exceeded quota: q, requested: pods=1'),
        "quota", Reason.UNSUPPORTED, "exceeded quota: q",
    ),
    (
        status(403, "Forbidden", 'pods "x" is forbidden: violates PodSecurity "restricted": runAsNonRoot != true'),
        "policy", Reason.UNSUPPORTED, "runAsNonRoot",
    ),
    (
        status(422, "Invalid", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
        "policy", Reason.UNSUPPORTED, "denied request: no",
    ),
    (
        status(404, "NotFound", 'namespaces "team" not found'),
        "absent", Reason.MISSING_INPUT, "kubectl create namespace team",
    ),
    (
        status(422, "Invalid", "Job is invalid", causes=[
            {"field": "spec.a", "message": "Required value"}, {"field": "spec.b", "message": "Unsupported value"}]),
        "invalid", Reason.BAD_EXPERIMENT, "spec.a: Required value\n  spec.b: Unsupported value",
    ),
    (
        status(500, "InternalError", "failed to create typed patch object: .spec.x: field not declared in schema"),
        "invalid", Reason.BAD_EXPERIMENT, "field not declared",
    ),
    (
        status(422, "Invalid", "x", causes=[
            {"field": "data", "message": "Forbidden: field is immutable when `immutable` is set"}]),
        "immutable", Reason.UNSUPPORTED, "it exists with other content",
    ),
    (
        status(409, "Conflict", "conflict", causes=[
            {"field": ".metadata.labels.x", "reason": "FieldManagerConflict", "message": 'conflict with "kubectl"'}]),
        "held", Reason.UNSUPPORTED, 'conflict with "kubectl"',
    ),
    (status(401, "Unauthorized", "Unauthorized"), "unauthorized", Reason.UNAUTHORIZED, "log in"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "cause", "reason", "says"), REFUSALS, ids=[r[3][:20] for r in REFUSALS])
def test_api_error_has_cause_reason_and_next_step(
    server: ApiServer, connect: Connect, reply: Reply, cause: str, reason: Reason, says: str
) -> None:
    server.answer = scripted(reply)
    failure = raised(lambda: connect().apply(JOB))
    assert isinstance(failure, KubernetesApiError)
    assert (failure.cause, failure.reason) == (cause, reason)
    assert says in failure.text()
    assert len(server.asked) == 1


def test_immutable_field_error_omits_the_value(server: ApiServer, connect: Connect) -> None:
    cause = {
        "field": "spec.template",
        "message": "Invalid value: {" + "long " * 500 + "}: field is immutable",
    }
    server.answer = scripted(status(422, "Invalid", "x", causes=[cause]))
    assert raised(lambda: connect().apply(JOB)).problems == ("spec.template: field is immutable",)
