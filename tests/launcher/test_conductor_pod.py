"""The conductor's pod: failures that close the attempt, and failures that only end the pod."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster
from tiny import make_plan

from launcher.manifests.labels import ATTEMPT_LABEL, RUN_LABEL, STAGE_LABEL, TRY_LABEL
from launcher.manifests.render import render
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.runs import finalize
from launcher.spec.site import Site
from launcher.store import DirectoryStore
from launcher.store.records import Request
from launcher.store.runs import Attempt
from launcher.targets.cluster import conductor_main
from launcher.targets.cluster.api_errors import api_error
from launcher.targets.cluster.client import Cluster


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[conductor_main.Settings]:
    """A pod that gives up at once what it would wait for."""
    monkeypatch.setattr(conductor_main, "_RETRY_INTERVAL_S", 0.01)
    monkeypatch.setattr(conductor_main, "_UNAUTHORIZED_S", 0.0)
    monkeypatch.setattr(conductor_main, "_OUTAGES", dict.fromkeys(conductor_main._OUTAGES, 0.2))
    monkeypatch.setattr(conductor_main, "_TERMINATION_LOG", tmp_path / "not-in-a-pod")
    (tmp_path / "plan.json").write_bytes(make_plan().to_bytes())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield conductor_main.Settings(
        run=tmp_path,
        store=str(tmp_path / "store"),
        attempt=1,
        job="tiny-1",
        namespace="team",
        start_timeout_s=60.0,
    )
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """The namespace, with the conductor's Job in it."""
    cluster = FakeCluster()
    cluster.create(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "tiny-1", "uid": "u", "labels": {}}}
    )
    monkeypatch.setattr(Cluster, "connect", lambda *_args, **_options: cluster)
    return cluster


@pytest.fixture
def attempt(arguments: conductor_main.Settings) -> Attempt:
    """The attempt, with `prepare` under way."""
    plan = make_plan()
    request = {"format": 1, "target": "cluster", "opened_at": 0.0}
    (arguments.run / "request.json").write_text(json.dumps(request))
    attempt = Attempt(DirectoryStore(Path(arguments.store)), plan.run_id, 1)
    attempt.record(plan, Request.read(request, "request.json"))
    for stage in plan.stages:
        (arguments.run / f"job-{stage.name}.json").write_text(json.dumps(stage_job(plan.run_id, stage.name)))
    attempt.begin_try("prepare", 1, 0.0)
    return attempt


def stage_job(run_id: str, stage: str) -> dict[str, Any]:
    labels = {
        RUN_LABEL: run_id,
        ATTEMPT_LABEL: "1",
        STAGE_LABEL: stage,
        TRY_LABEL: "1",
        "app.kubernetes.io/component": "stage",
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{stage}-t1", "labels": labels},
        "spec": {"template": {"metadata": {"labels": dict(labels)}, "spec": {}}},
    }


def test_attempt_closed_without_a_conductor_gets_its_stages_stopped_and_a_receipt(
    arguments: conductor_main.Settings, cluster: FakeCluster, attempt: Attempt
) -> None:
    cluster.create(stage_job(attempt.run_id, "prepare"))
    cluster.run("prepare-t1")
    finalize.cancel(attempt)
    assert conductor_main.conduct(arguments) == DISPOSITIONS[Reason.CANCELLED].exit_code
    assert "prepare-t1" in cluster.deleted
    assert attempt.conductor_exited
    [one] = attempt.tries()
    assert one.reason is Reason.TERMINATED
    assert attempt.get("receipt.json") is not None


def test_conductor_that_fails_permanently_stops_its_stages(
    arguments: conductor_main.Settings,
    cluster: FakeCluster,
    attempt: Attempt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster.create(stage_job(attempt.run_id, "prepare"))
    code, reason = ended(arguments, Failure(Reason.UNSUPPORTED, "it cannot be done"), monkeypatch)
    assert (code, reason) == (DISPOSITIONS[Reason.UNSUPPORTED].exit_code, "unsupported")
    assert cluster.deleted == ["prepare-t1"]
    assert attempt.conductor_exited


def test_failed_conductor_names_cancel_if_stages_cannot_be_stopped(
    arguments: conductor_main.Settings,
    cluster: FakeCluster,
    attempt: Attempt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object, **_options: object) -> object:
        raise Failure(Reason.UNAUTHORIZED, "conductor may not list jobs", where="here")

    monkeypatch.setattr(cluster, "list", refuse)
    ended(arguments, Failure(Reason.UNSUPPORTED, "it cannot be done"), monkeypatch)
    assert not attempt.conductor_exited
    assert attempt.outcome.failure.next_step.endswith(f"launcher cancel {attempt.run_id} stops its stages")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("reason", [Reason.KILLED, Reason.TERMINATED])
def test_closed_attempt_never_exits_like_an_evicted_pod(
    arguments: conductor_main.Settings, attempt: Attempt, reason: Reason
) -> None:
    # Its Job would start another pod, up to twenty times.
    finalize.close_failed(attempt, Failure(reason, "every try of a stage was killed"))
    assert conductor_main.conduct(arguments) == DISPOSITIONS[Reason.BLOCKED].exit_code


def ended(
    arguments: conductor_main.Settings, failure: Failure, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str | None]:
    """The pod's exit code, and the reason with which it closed the attempt."""

    def once(*_: object) -> int:
        raise failure

    monkeypatch.setattr(conductor_main, "_conduct_once", once)
    code = conductor_main.conduct(arguments)
    outcome = Attempt(DirectoryStore(Path(arguments.store)), make_plan().run_id, 1).outcome
    return code, outcome and outcome.reason.value


def test_void_token_ends_the_pod_not_the_attempt(
    arguments: conductor_main.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a node that is lost and does not know: its pod was deleted, and another follows.
    void = api_error(401, {"message": "Unauthorized"}, doing="watch jobs", where="here")
    assert ended(arguments, void, monkeypatch) == (75, None)


def test_unreachable_api_server_ends_the_pod_not_the_attempt(
    arguments: conductor_main.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(arguments, Failure(Reason.NETWORK, "away"), monkeypatch) == (75, None)


@pytest.mark.usefixtures("cluster")
def test_missing_permission_closes_the_attempt(
    arguments: conductor_main.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'User "bob" cannot watch resource "jobs" in API group "batch" in the namespace "team"'
    missing = api_error(403, {"message": text}, doing="watch jobs", where="here")
    code = DISPOSITIONS[Reason.UNAUTHORIZED].exit_code
    assert ended(arguments, missing, monkeypatch) == (code, "unauthorized")


def test_the_rendered_command_line_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    image = f"registry.example/image@sha256:{'0' * 64}"
    site = Site.model_validate(
        {
            "format": 1,
            "namespace": "team",
            "store": {"inside": "s3://runs/x"},
            "images": dict.fromkeys(("trainer", "worker", "conductor"), image),
        }
    )
    rendered = render(make_plan(), site, attempt=3)
    [job] = [item for item in rendered.objects if item["kind"] == "Job"]
    python, dash_m, module, *arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (python, dash_m, module) == ("python", "-m", conductor_main.__name__)
    given: list[conductor_main.Settings] = []
    monkeypatch.setattr(conductor_main, "conduct", lambda settings: given.append(settings) or 0)
    monkeypatch.setattr("sys.argv", [module, *arguments])
    assert conductor_main.main() == 0
    assert given == [
        conductor_main.Settings(
            run=Path("/etc/tuneyard"),
            store="s3://runs/x",
            attempt=3,
            job=rendered.conductor_job,
            namespace="team",
            start_timeout_s=900.0,
        )
    ]
