"""Consent to run a task's code: by digest or by an answer, remembered for this user."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from launcher.api import submit
from launcher.outcome import Failure, Reason
from launcher.resolve.resolver import resolve
from launcher.runs.code_consent import Consent, task_code
from launcher.spec.loading import load
from launcher.spec.plan import Plan
from launcher.spec.planner import plan

LETTERS = Path(__file__).parent / "letters"
UNTUNED = {"name": "untuned", "kind": "prompted", "model": "random-llama"}


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "letters.yaml"
    path.write_text(yaml.safe_dump({"name": "letters", "task": str(LETTERS), "contenders": [UNTUNED]}))
    resolved = resolve(load(str(path)))
    return plan(resolved.experiment, resolved.lock)


def digest(made: Plan) -> str:
    code = task_code(made)
    assert code is not None
    return code.digest


def test_a_built_in_task_needs_no_consent() -> None:
    resolved = resolve(load("sql", profile="smoke"))
    assert task_code(plan(resolved.experiment, resolved.lock)) is None
    Consent().check(plan(resolved.experiment, resolved.lock))


def test_code_is_refused_without_a_digest_and_without_a_terminal(letters: Plan) -> None:
    with pytest.raises(Failure, match="has not been allowed") as caught:
        Consent().check(letters)
    assert caught.value.reason is Reason.USAGE
    assert digest(letters) in caught.value.next_step


@pytest.mark.parametrize("given", ["", "abc", "0" * 64, "../etc"])
def test_another_or_a_short_digest_is_refused(letters: Plan, given: str) -> None:
    with pytest.raises(Failure, match="has the sha256"):
        Consent(given).check(letters)
    with pytest.raises(Failure, match="has the sha256"):
        Consent(digest(letters)[:11]).check(letters)


def test_the_python_api_refuses_without_allow_code_and_writes_nothing(letters: Plan, tmp_path: Path) -> None:
    experiment = load(str(tmp_path / "letters.yaml"))
    store = str(tmp_path / "store")
    with pytest.raises(Failure, match="has not been allowed"):
        submit(experiment, store=store)
    with pytest.raises(Failure, match="has the sha256") as caught:
        submit(experiment, store=store, allow_code="0" * 64)
    assert digest(letters) in caught.value.what
    assert not (tmp_path / "store" / "runs").exists()


def test_allowed_code_is_remembered_by_its_digest(letters: Plan) -> None:
    Consent(digest(letters)).check(letters)
    Consent().check(letters)


def test_a_declined_question_refuses_and_an_accepted_one_is_not_asked_again(letters: Plan) -> None:
    asked: list[str] = []

    def answer(accepted: bool) -> Consent:
        return Consent(ask=lambda description: bool(asked.append(description)) or accepted)

    with pytest.raises(Failure, match="has not been allowed"):
        answer(False).check(letters)
    answer(True).check(letters)
    answer(False).check(letters)
    assert len(asked) == 2
    assert digest(letters) in asked[0]
