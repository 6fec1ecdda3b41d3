"""One submit for CLI and API: what was rendered and checked is what is started, and Helm runs once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_cluster import FakeCluster
from tiny import make_plan

import launcher
import launcher.cli.retry
import launcher.cli.submit
from launcher.cli.main import main
from launcher.costs import budget
from launcher.manifests import helm
from launcher.outcome import Failure, Reason
from launcher.runs import finalize
from launcher.runs.submission import Submission, continue_run, retry_run
from launcher.spec.site import Site
from launcher.store import DirectoryStore, selection
from launcher.store.runs import Attempt
from launcher.targets.cluster import target as cluster_target
from launcher.targets.cluster.target import ClusterTarget
from launcher.targets.runner import Runner

IMAGE = f"registry.example/image@sha256:{'0' * 64}"
SITE = {
    "format": 1,
    "namespace": "team",
    "store": {"inside": "s3://runs/x"},
    "images": dict.fromkeys(("trainer", "worker", "conductor"), IMAGE),
}


class Bucket(DirectoryStore):
    """A directory with the address of a store that pods can reach."""

    @property
    def address(self) -> str:
        return "s3://runs/x"


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "store")


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """The namespace that every target connects to; it accepts every dry run."""
    cluster = FakeCluster()
    monkeypatch.setattr(cluster_target, "connect", lambda *_: cluster)
    monkeypatch.setattr(cluster_target, "preflight", lambda *_: ())
    return cluster


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The release of every call of Helm."""
    releases: list[str] = []
    template = helm.template

    def counted(chart: Path, **options: Any) -> str:
        releases.append(options["release"])
        return template(chart, **options)

    monkeypatch.setattr(helm, "template", counted)
    return releases


def first(store: DirectoryStore, **changes: Any) -> Submission:
    return continue_run(make_plan(), store, target="cluster", site=Site.model_validate(SITE), **changes)


def submit(submission: Submission, **overlay: Any) -> list[str]:
    """Messages while the submission is started."""
    messages: list[str] = []
    Runner(ClusterTarget(submission.site, overlay or None, None, messages.append)).submit(submission)
    return messages


def conductors(cluster: FakeCluster) -> list[str]:
    return list(cluster.things["Job"])


def test_helm_renders_once_per_submit_and_supervision(bucket: Bucket, rendered: list[str]) -> None:
    submission = first(bucket)
    run = Runner(ClusterTarget(submission.site, None, None, print)).submit(submission)
    run.supervise()
    assert rendered == [run.id]


def test_helm_renders_once_per_retry(bucket: Bucket, rendered: list[str]) -> None:
    submit(first(bucket))
    finalize.cancel(Attempt(bucket, make_plan().run_id, 1))
    rendered.clear()
    submission = retry_run(bucket, make_plan().run_id, site=Site.model_validate(SITE))
    submit(submission)
    assert rendered == [make_plan().run_id]
    assert bucket.list(f"runs/{make_plan().run_id}/attempts") == ["1", "2"]


def test_an_attempt_that_has_ended_renders_nothing_and_needs_no_cluster(
    bucket: Bucket, rendered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(first(bucket))
    finalize.cancel(Attempt(bucket, make_plan().run_id, 1))
    rendered.clear()
    monkeypatch.setattr(cluster_target, "connect", lambda *_: pytest.fail("connected"))
    submission = first(bucket)
    run = Runner(ClusterTarget(submission.site, None, None, print)).submit(submission)
    run.supervise().look()
    assert rendered == []
    with pytest.raises(Failure, match="cancelled"):
        run.wait()


def test_a_refused_check_writes_and_applies_nothing(
    bucket: Bucket, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Failure(Reason.UNSUPPORTED, "no such Secret")

    monkeypatch.setattr(cluster_target, "preflight", refuse)
    with pytest.raises(Failure, match="no such Secret"):
        submit(first(bucket))
    assert bucket.list("runs") == []
    assert conductors(cluster) == []


def test_what_was_checked_is_what_is_applied(
    bucket: Bucket, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(cluster_target, "preflight", lambda _, rendered, __: checked.append(rendered) or ())
    submit(first(bucket))
    [rendered] = checked
    assert conductors(cluster) == [rendered.conductor_job]
    [config_map] = cluster.things["ConfigMap"].values()
    [wanted] = [item for item in rendered.objects if item["kind"] == "ConfigMap"]
    assert config_map["data"] == wanted["data"]


def test_the_cap_of_an_open_attempt_stays(bucket: Bucket, cluster: FakeCluster) -> None:
    submit(first(bucket, budget_usd=5.0))
    submit(first(bucket, budget_usd=9.0))
    assert len(conductors(cluster)) == 1
    assert budget.budget_usd(Attempt(bucket, make_plan().run_id, 1)) == 5.0


def test_two_first_submits_at_once_apply_the_cap_that_was_recorded(
    bucket: Bucket, cluster: FakeCluster
) -> None:
    late = first(bucket, budget_usd=9.0)
    submit(first(bucket, budget_usd=5.0))
    submit(late)
    assert len(conductors(cluster)) == 1


def test_submitting_again_joins_silently(bucket: Bucket, cluster: FakeCluster) -> None:
    assert submit(first(bucket)) == []
    assert submit(first(bucket)) == []
    assert len(conductors(cluster)) == 1


def test_another_overlay_warns_of_the_conductor_that_it_ends(bucket: Bucket, cluster: FakeCluster) -> None:
    submit(first(bucket))
    [running] = conductors(cluster)
    [message] = submit(first(bucket), spec={"priorityClassName": "batch"})
    assert message.startswith(f"warning: {running} conducts this run with another site, placement or overlay")


def test_a_retry_after_an_ended_attempt_gives_no_warning(bucket: Bucket) -> None:
    submit(first(bucket))
    finalize.cancel(Attempt(bucket, make_plan().run_id, 1))
    assert submit(retry_run(bucket, make_plan().run_id, site=Site.model_validate(SITE))) == []


@pytest.fixture
def home(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a site file, whose named store is the bucket."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE))
    for module in (selection, sys.modules["launcher.cli.submit"], sys.modules["launcher.cli.retry"]):
        monkeypatch.setattr(module, "open_named_store", lambda *_, **__: bucket)
    return tmp_path


def by_command_line(home: Path) -> None:
    sys.argv = [
        "launcher",
        "submit",
        "sql",
        "--profile",
        "smoke",
        "--detach",
        "--site",
        str(home / "site.yaml"),
    ]
    assert main() == 0


def by_api(home: Path) -> None:
    launcher.submit(launcher.load("sql", profile="smoke"), target="cluster", site=home / "site.yaml")


@pytest.mark.parametrize("by", [by_command_line, by_api])
def test_command_line_and_api_start_the_same_run(
    by: Callable[[Path], None],
    home: Path,
    bucket: Bucket,
    cluster: FakeCluster,
    rendered: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    by(home)
    plan = launcher.make_plan(launcher.load("sql", profile="smoke"))
    assert rendered == [plan.run_id]
    assert bucket.list("runs") == [plan.run_id]
    assert len(conductors(cluster)) == 1
