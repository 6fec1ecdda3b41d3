"""The conductor's pod: what closes an attempt, and what only ends this pod."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import make_plan

from launcher.cluster import conduct
from launcher.cluster.refusals import refusal
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.runs import Attempt
from launcher.store import DirectoryStore


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[argparse.Namespace]:
    """A pod that gives up at once what it would wait for."""
    monkeypatch.setattr(conduct, "_AWAY_PAUSE_S", 0.01)
    monkeypatch.setattr(conduct, "_DISOWNED_S", 0.0)
    monkeypatch.setattr(conduct, "_AWAY", dict.fromkeys(conduct._AWAY, 0.2))
    monkeypatch.setattr(conduct, "_TERMINATION_LOG", tmp_path / "not-in-a-pod")
    (tmp_path / "plan.json").write_bytes(make_plan().to_bytes())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield argparse.Namespace(run=tmp_path, store=str(tmp_path / "store"), attempt=1, job="tiny-1")
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ended(
    arguments: argparse.Namespace, failure: Failure, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str | None]:
    """The pod's exit code, and the reason with which it closed the attempt."""

    def once(*_: object) -> int:
        raise failure

    monkeypatch.setattr(conduct, "_conduct_once", once)
    code = conduct.conduct(arguments)
    outcome = Attempt(DirectoryStore(Path(arguments.store)), make_plan().run_id, 1).outcome
    return code, outcome and outcome["reason"]


def test_a_token_that_is_void_ends_the_pod_and_not_the_attempt(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a node that is lost and does not know: its pod was deleted, and another follows.
    void = refusal(401, {"message": "Unauthorized"}, doing="watch jobs", where="here")
    assert ended(arguments, void, monkeypatch) == (75, None)


def test_an_api_server_that_stays_away_ends_the_pod_and_not_the_attempt(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(arguments, Failure(Reason.NETWORK, "away"), monkeypatch) == (75, None)


def test_a_right_that_is_missing_closes_the_attempt_and_is_named(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'User "bob" cannot watch resource "jobs" in API group "batch" in the namespace "team"'
    missing = refusal(403, {"message": text}, doing="watch jobs", where="here")
    code = DISPOSITIONS[Reason.UNAUTHORIZED].exit_code
    assert ended(arguments, missing, monkeypatch) == (code, "unauthorized")
