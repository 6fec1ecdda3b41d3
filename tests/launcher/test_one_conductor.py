"""A local run has one conductor at a time, across concurrent submits, kills and errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import commit_everything, make_plan

import launcher
from launcher.outcome import Failure, Reason
from launcher.runs import finalize
from launcher.runs.conductor import Conductor
from launcher.runs.submission import continue_run, retry_run
from launcher.spec.plan import Plan
from launcher.spec.site import Site
from launcher.store import DirectoryStore, runs
from launcher.store.records import Outcome
from launcher.store.runs import Attempt
from launcher.targets.local import conductor_main, supervision
from launcher.targets.local.detached import ensure_conductor
from launcher.targets.local.environment import stage_environment

Wait = Callable[..., None]


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture(autouse=True)
def find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(launcher.__file__).parents[1]))


@pytest.fixture
def attempt(store: DirectoryStore, plan: Plan, wait_until: Wait) -> Iterator[Attempt]:
    """An open attempt at a run whose stages are all committed; its conductor is gone when the test ends."""
    commit_everything(plan, store)
    yield continue_run(plan, store, target="local", site=Site()).open()
    wait_until(lambda: runs.conductor_of(store, plan.run_id) is None)


def start(attempt: Attempt) -> None:
    ensure_conductor(attempt.store, attempt.run_id, attempt.number)


def conductors(store: DirectoryStore) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"launcher.targets.local" in words and store.address.encode() in words:
                found.append(int(entry.name))
    return found


def test_detached_conductor_closes_the_attempt(attempt: Attempt, wait_until: Wait) -> None:
    start(attempt)
    wait_until(lambda: attempt.outcome)
    assert attempt.outcome is not None
    assert attempt.outcome.reason.value == "succeeded"
    assert attempt.get("verdict.json")["run_id"] == attempt.run_id
    assert attempt.get("receipt.json")["seconds"] == 16.0
    assert attempt.store.local_path(attempt.path("report.md")).read_text().startswith(f"# {attempt.run_id}")


def test_concurrent_submits_are_one_run(attempt: Attempt, plan: Plan, wait_until: Wait) -> None:
    store, errors = attempt.store, []

    def submit() -> None:
        try:
            start(continue_run(plan, store, target="local", site=Site()).open())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: attempt.outcome)
    wait_until(lambda: not conductors(store))
    assert errors == []
    assert runs.attempts(store, plan.run_id) == [1]


_HOLD = """
import sys
from pathlib import Path
from launcher.store import DirectoryStore
from launcher.store.lease import Lease, acquire, run_lease
store, run = DirectoryStore(Path(sys.argv[1])), sys.argv[2]
with acquire(store, run_lease(run), "the test", run=run, attempt=int(sys.argv[3])) as held:
    print(isinstance(held, Lease), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(store: DirectoryStore, plan: Plan) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Another process that is the conductor of an attempt, until its stdin is closed."""
    holders = []

    def start(number: int) -> subprocess.Popen[str]:
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(store.root), plan.run_id, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_live_conductor_prevents_another(
    attempt: Attempt, hold: Callable[[int], subprocess.Popen[str]]
) -> None:
    holder = hold(1)
    start(attempt)
    assert conductors(attempt.store) == []
    conductor = runs.conductor_of(attempt.store, attempt.run_id)
    assert conductor is not None
    assert conductor.attempt == 1
    holder.kill()
    holder.wait()
    assert runs.conductor_of(attempt.store, attempt.run_id) is None


def test_retry_waits_for_the_old_conductor_to_stop(
    attempt: Attempt, hold: Callable[[int], subprocess.Popen[str]], wait_until: Wait
) -> None:
    holder = hold(1)
    assert finalize.cancel(attempt)
    second = retry_run(attempt.store, attempt.run_id, target="local", site=Site()).open()
    starter = threading.Thread(target=start, args=(second,))
    starter.start()
    starter.join(0.2)
    assert starter.is_alive()
    assert conductors(attempt.store) == []
    holder.kill()
    starter.join(30)
    wait_until(lambda: second.outcome)
    assert second.outcome is not None
    assert second.outcome.reason.value == "succeeded"


def test_concurrent_retries_are_one_attempt(attempt: Attempt) -> None:
    finalize.cancel(attempt)
    opened: list[int | str] = []

    def retry() -> None:
        try:
            following = retry_run(attempt.store, attempt.run_id, target="local", site=Site())
            opened.append(following.open().number)
        except Failure as failure:
            opened.append(failure.what)

    threads = [threading.Thread(target=retry) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 in opened
    assert set(opened) <= {2, "attempt 2 is still open"}
    assert runs.attempts(attempt.store, attempt.run_id) == [1, 2]


def test_liveness_checks_do_not_block_a_conductor(attempt: Attempt, wait_until: Wait) -> None:
    asking = True

    def ask() -> None:
        while asking:
            runs.conductor_of(attempt.store, attempt.run_id)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        start(attempt)
        wait_until(lambda: attempt.outcome)
    finally:
        asking = False
        for thread in threads:
            thread.join()


def test_cancelled_attempt_starts_no_conductor(attempt: Attempt) -> None:
    finalize.cancel(attempt)
    start(attempt)
    assert conductors(attempt.store) == []
    assert attempt.get("verdict.json") is None


def test_attempt_cancelled_during_start_stays_cancelled(attempt: Attempt, wait_until: Wait) -> None:
    starter = threading.Thread(target=start, args=(attempt,))
    starter.start()
    cancelled = finalize.cancel(attempt)
    starter.join(30)
    wait_until(lambda: not conductors(attempt.store))
    assert attempt.outcome is not None
    assert (attempt.outcome.reason.value == "cancelled") == cancelled


def test_conductor_that_cannot_start_names_its_log(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    false = tmp_path / "python"
    false.write_text("#!/bin/sh\necho it broke; exit 3\n")
    false.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(false))
    with pytest.raises(Failure, match="the conductor did not start") as caught:
        start(attempt)
    log = Path(caught.value.next_step.removeprefix("read "))
    assert log.read_text() == "it broke\n"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Failure(Reason.DISK_FULL, "full"), Reason.DISK_FULL),
        (Failure(Reason.CORRUPT_ARTIFACT, "changed"), Reason.CORRUPT_ARTIFACT),
        (RuntimeError("the unforeseen"), Reason.INTERNAL),
    ],
)
def test_conductor_error_closes_the_attempt(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason
) -> None:
    def broken(_: Conductor) -> Outcome:
        raise error

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(Conductor, "run", broken)
    try:
        assert conductor_main.conduct(attempt.store, attempt.run_id, attempt.number) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert attempt.outcome is not None
    assert attempt.outcome.reason is reason
    assert attempt.outcome.failure.next_step
    assert runs.view(attempt.store, attempt.run_id).outcome.to_json() == attempt.outcome.to_json()


def test_corrupt_report_closes_the_attempt(attempt: Attempt, plan: Plan, wait_until: Wait) -> None:
    path = attempt.store.local_path(f"stages/{plan.stage('report').key}/results.json")
    path.write_text(path.read_text().replace("sample", "forged"))
    start(attempt)
    wait_until(lambda: attempt.outcome)
    assert attempt.outcome is not None
    assert attempt.outcome.reason.value == "corrupt-artifact"
    assert "delete" in attempt.outcome.failure.next_step


def test_supervision_restarts_a_killed_conductor_three_times(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(supervision, "ensure_conductor", lambda *arguments: started.append(arguments))
    watcher = supervision.ConductorSupervision(attempt)
    for _ in range(3):
        watcher.look()
    with pytest.raises(Failure, match="was killed 4 times") as caught:
        watcher.look()
    assert caught.value.reason is Reason.KILLED
    assert len(started) == 3
    finalize.cancel(attempt)
    watcher.look()


def test_python_api_submits_and_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = launcher.load("sql", profile="smoke")
    plan = launcher.make_plan(loaded)
    store = DirectoryStore(tmp_path / "store")
    commit_everything(plan, store)
    run = launcher.submit(loaded, store=str(store.root))
    assert run.id == plan.run_id
    assert run.wait(timeout_s=60)["reason"] == "succeeded"
    assert run.verdict is not None
    assert run.verdict["run_id"] == plan.run_id
    with pytest.raises(Failure, match="pods cannot reach"):
        launcher.submit(loaded, target="cluster")


def test_secrets_reach_only_the_stages_that_need_them(
    plan: Plan, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    seen = {stage.kind: set(stage_environment(stage, store.address)) for stage in plan.stages}
    assert {kind for kind, names in seen.items() if "HF_TOKEN" in names} == {"fetch"}
    assert not any("OPENAI_API_KEY" in names for names in seen.values())  # no contender is hosted
    assert not any("AWS_SECRET_ACCESS_KEY" in names for names in seen.values())
    assert all("PATH" in names for names in seen.values()) == ("PATH" in os.environ)
