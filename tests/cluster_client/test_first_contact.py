"""The first request to an API server times out soon; later ones are retried and the wait is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.outcome import Failure, Reason
from launcher.spec.site import Site
from launcher.targets.cluster import connection
from launcher.targets.cluster.api_errors import KubernetesApiError
from launcher.targets.cluster.client import Cluster
from launcher.targets.cluster.target import ClusterTarget
from tests.cluster_client.api_server import Answering, ApiServer, Asked, Reply, listing, scripted, status
from tests.cluster_client.conftest import Clock

AWAY = Reply(503, b"<html>bad gateway")


@pytest.fixture
def submit(kubeconfig: Path) -> tuple[ClusterTarget, list[str]]:  # noqa: ARG001
    """The target that submit uses, and its messages."""
    messages: list[str] = []
    return ClusterTarget(Site(), None, None, messages.append), messages


@pytest.fixture
def nothing_listens(server: ApiServer) -> Iterator[None]:
    server.__exit__()
    yield
    server.__enter__()


def after_contact(answer: Answering) -> Answering:
    """Tells its version, and answers everything else as `answer` does."""

    def answered(asked: Asked) -> Reply:
        return Reply(body={"major": "1"}) if asked.path == "/version" else answer(asked)

    return answered


@pytest.mark.usefixtures("nothing_listens")
def test_first_contact_times_out_soon(clock: Clock, submit: tuple[ClusterTarget, list[str]]) -> None:
    began_s = clock.now_s
    with pytest.raises(Failure, match="connection refused") as caught:
        _ = submit[0].cluster
    assert caught.value.reason is Reason.NETWORK
    assert clock.now_s - began_s < 10


def test_first_contact_times_out_soon_behind_a_gateway(
    server: ApiServer, clock: Clock, submit: tuple[ClusterTarget, list[str]]
) -> None:
    server.answer = scripted(AWAY)
    began_s = clock.now_s
    with pytest.raises(Failure) as caught:
        _ = submit[0].cluster
    assert caught.value.reason is Reason.NETWORK
    assert clock.now_s - began_s < 10


def test_later_requests_are_retried_for_the_full_timeout_and_reported_once(
    server: ApiServer, clock: Clock, submit: tuple[ClusterTarget, list[str]]
) -> None:
    target, messages = submit
    server.answer = after_contact(scripted(AWAY))
    began_s = clock.now_s
    with pytest.raises(Failure):
        target.cluster.list("Job")
    assert (
        connection.RETRY_TIMEOUT_S - connection.LONGEST_WAIT_S
        <= clock.now_s - began_s
        <= connection.RETRY_TIMEOUT_S
    )
    [reported] = messages
    assert reported.startswith(f"waiting for the API server {server.url}, up to 60 s (Ctrl-C to stop): ")


@pytest.mark.usefixtures("clock")
def test_short_waits_are_not_reported_and_each_long_one_is(
    server: ApiServer, submit: tuple[ClusterTarget, list[str]]
) -> None:
    target, messages = submit
    busy = Reply(429, {}, headers=[("Retry-After", "4")])
    answers = [AWAY, AWAY, listing("1"), busy, busy, busy, listing("1"), busy, busy, listing("1")]
    server.answer = after_contact(scripted(*answers))
    counts = []
    for _ in range(3):
        target.cluster.list("Job")
        counts.append(len(messages))
    assert counts == [0, 1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        Reply(body={"major": "1"}),
        status(403, "Forbidden", 'User "bob" cannot get path "/version"'),
        status(429, "TooManyRequests", "slow down"),
    ],
)
@pytest.mark.usefixtures("clock")
def test_any_answer_of_the_server_is_a_contact(
    server: ApiServer, submit: tuple[ClusterTarget, list[str]], answer: Reply
) -> None:
    server.answer = scripted(answer)
    assert submit[0].cluster.namespace == "team"


@pytest.mark.usefixtures("clock")
def test_rejected_credentials_fail_the_first_contact(
    server: ApiServer, submit: tuple[ClusterTarget, list[str]]
) -> None:
    server.answer = scripted(status(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(KubernetesApiError, match="does not accept these credentials"):
        _ = submit[0].cluster
    assert len(server.asked) == 1


def test_connect_timeout_is_at_most_the_read_timeout(
    connect: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, given = connect(), []

    def request(*_: object, _request_timeout: tuple[float, float], **__: object) -> object:
        given.append(_request_timeout)
        raise OSError

    monkeypatch.setattr(cluster.connection._rest, "request", request)
    with pytest.raises(Failure):
        cluster.connection.reach(timeout_s=0.1)
    assert set(given) == {(0.1, 0.1)}
