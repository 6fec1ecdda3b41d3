"""gc deletes what no kept run needs and nothing else; a dry run deletes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from places import Place
from pydantic import ValidationError

from launcher.outcome import Failure, Reason
from launcher.spec.plan import Plan, Resources, Stage
from launcher.spec.stages import ReportSettings
from launcher.store import Store, encode
from launcher.store.gc import delete, plan_gc
from launcher.store.lease import Lease, acquire, run_lease, stage_lease
from launcher.store.runs import Attempt

Files = Callable[[dict[str, bytes]], Path]
DAY_S = 86400.0


def add_run(
    store: Store, files: Files, run_id: str, keys: list[str], age_days: float, accuracy: float | None
) -> None:
    """A run whose stages have the given keys; without an accuracy its attempt is open."""
    settings = ReportSettings.model_construct().model_dump(mode="json")
    stages = tuple(
        Stage(
            name=f"report-{key}",
            kind="report",
            version=1,
            key=key * 64,
            settings=settings,
            needs={},
            inputs={"x": key * 64},
            resources=Resources(device="cpu"),
        )
        for key in keys
    )
    plan = Plan(run_id=run_id, experiment={}, lock={}, stages=stages)
    then = time.time() - age_days * DAY_S
    store.put_json(f"runs/{run_id}/plan.json", plan.model_dump(mode="json"))
    for key in keys:
        store.commit(
            f"stages/{key * 64}", files({"out": key.encode() * 100}), {"started_at": then, "seconds": 1.0}
        )
    attempt = Attempt(store, run_id, 1)
    attempt.put("request.json", {"opened_at": then})
    if accuracy is not None:
        measures = {"strict": {"value": accuracy}}
        results = {
            "experiment": "sql",
            "primary": "strict",
            "data": {"source": "sample"},
            "contenders": [{"measures": measures}],
        }
        attempt.put("verdict.json", {"results": results})
        attempt.put("outcome.json", {"reason": "succeeded", "ended_at": then})


def read_small_plan(store: Store, run_id: str) -> Plan:
    """The plans here are too small to have true keys, which reading a plan would check."""
    try:
        return Plan.model_validate_json(encode(store.get_json(f"runs/{run_id}/plan.json")))
    except ValidationError:
        raise Failure(Reason.BAD_EXPERIMENT, "not a plan") from None


@pytest.fixture
def store(place: Place, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("launcher.store.gc.read_plan", read_small_plan)
    return place.open()


def gone_after(store: Store, **options: bool) -> set[str]:
    arguments = {"older_than_s": 30 * DAY_S, "keep_best": options.get("keep_best", True)}
    before = set(store.list("runs")) | set(store.list("stages"))
    found = plan_gc(store, **arguments)  # type: ignore[arg-type]
    assert set(store.list("runs")) | set(store.list("stages")) == before, "a dry run deleted something"
    delete(store, found, **arguments)  # type: ignore[arg-type]
    return {name[:12] for name in before - set(store.list("runs")) - set(store.list("stages"))}


def test_gc_deletes_old_runs_and_keeps_what_kept_runs_reach(store: Store, files: Files) -> None:
    add_run(store, files, "sql-00000001", ["a", "b"], 60, 0.5)
    add_run(store, files, "sql-00000002", ["b", "c"], 1, 0.4)
    assert gone_after(store, keep_best=False) == {"sql-00000001", "a" * 12}


def test_gc_keeps_the_best_run_at_any_age(store: Store, files: Files) -> None:
    add_run(store, files, "sql-00000001", ["a"], 90, 0.9)
    add_run(store, files, "sql-00000002", ["b"], 60, 0.4)
    assert gone_after(store) == {"sql-00000002", "b" * 12}


def test_gc_never_deletes_a_live_run(store: Store, files: Files) -> None:
    add_run(store, files, "sql-00000001", ["a"], 60, None)
    add_run(store, files, "sql-00000002", ["b"], 60, None)
    add_run(store, files, "sql-00000003", ["c"], 60, None)
    path = "runs/sql-00000001/attempts/1/heartbeats/report-a.json"
    store.put_json(path, {"at": time.time()}, create_once=False)
    run = "sql-00000002"
    lease = acquire(store, run_lease(run), "the test", run=run, attempt=1)
    assert isinstance(lease, Lease)
    with lease:
        assert gone_after(store, keep_best=False) == {"sql-00000003", "c" * 12}


def test_gc_keeps_every_stage_if_one_run_is_unreadable(store: Store, files: Files) -> None:
    add_run(store, files, "sql-00000001", ["a"], 60, 0.5)
    store.put_json("runs/sql-00000002/plan.json", {"format": 999})
    assert gone_after(store, keep_best=False) == {"sql-00000001"}


def test_gc_deletes_old_leftovers_only(store: Store, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(store, files, "sql-00000001", ["a"], 1, 0.5)

    class Dies(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr("launcher.store.s3.S3Store._publish_manifest", die)
        patch.setattr("launcher.store.directory._write_synced", die)
        patch.setattr("launcher.store.directory.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(Dies):
            store.commit("stages/z", files({"x": b"x" * 100}), {})
    assert plan_gc(store, older_than_s=0, keep_best=True).deletions == []
    found = plan_gc(store, older_than_s=30 * DAY_S, keep_best=True, now=time.time() + 2 * DAY_S)
    assert [one.leftover is not None for one in found.deletions] == [True]
    store.discard(found.deletions[0].leftover)  # type: ignore[arg-type]
    assert store.leftovers() == ()


def test_gc_deletes_the_leases_of_stages_that_no_run_has(store: Store) -> None:
    key = "d" * 64
    lease = acquire(store, stage_lease(key), "the stage", run="sql-00000009", attempt=1)
    assert isinstance(lease, Lease)
    found = plan_gc(store, older_than_s=3600.0, keep_best=False)
    assert stage_lease(key) not in {one.path for one in found.deletions}
    found = plan_gc(store, older_than_s=0.0, keep_best=False)
    assert stage_lease(key) in {one.path for one in found.deletions}
    delete(store, found, older_than_s=0.0, keep_best=False)
    assert store.list("leases") == []
