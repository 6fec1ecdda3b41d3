"""Stages `tune` and `predict` with a service: SIGTERM, cancel, dropped rows, rate limits, shots, budget."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import Server, upload_of
from staging import TEST_ROWS, Study, study

from jobs.hosted import completions, idempotency, upload_checks
from jobs.hosted.chat import ChatRequest
from jobs.hosted.client import RetryPolicy
from jobs.rehearsal import session
from jobs.stage import Stopped
from jobs.tune import stage
from launcher.outcome import Failure, Reason
from launcher.runs import finalize
from launcher.store.runs import Attempt

KEY = "sk-test-one"
FAST_POLICY = RetryPolicy(
    tries=6, first_wait_s=0.02, longest_wait_s=1.0, timeout_s=30.0, settle_s=0.05, poll_s=0.05
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(session, "retry_policy", lambda _url: FAST_POLICY)


def test_unchanged_progress_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = study(tmp_path, "http://127.0.0.1:9/v1").context("predict-hosted-s1")
    for rows in (0, 0, 0, 2, 5, 5):
        context.heartbeat(rows, 5, "rows")
    lines = [line.split(" eta")[0].rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["rows 0/5", "rows 5/5"]


def stop_when_running(one: Study, server: Server, before: Callable[[], None] = lambda: None) -> None:
    """Run `tune`; once its job is running, call `before` and request a stop."""
    context = one.context("tune-hosted-s1")
    client = server.client()

    def watch() -> None:
        while not any(job.status == "running" for job in client.fine_tuning.jobs.list()):
            pass
        before()
        context.request_stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with pytest.raises(Stopped):
        stage.run(context)
    watcher.join()


def test_sigterm_leaves_the_job_running_for_the_next_try(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    one = study(tmp_path, server.url, training=upload_of(16, "slowly"))
    stop_when_running(one, server)
    assert [job.status for job in server.client().fine_tuning.jobs.list()] == ["running"]
    one.tune()
    assert server.counters()["jobs-created"] == 1


def test_cancelled_run_cancels_its_job(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server()
    one = study(tmp_path, server.url, training=upload_of(16, "slowly"))
    attempt = Attempt(one.store, one.plan.run_id, 1)
    stop_when_running(one, server, lambda: finalize.cancel(attempt) and None)
    assert [job.status for job in server.client().fine_tuning.jobs.list()] == ["cancelled"]
    assert idempotency.is_cancelled(one.context("tune-hosted-s1"))


def test_job_is_adopted_from_another_store(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server()
    for name in ("first", "second"):
        study(tmp_path / name, server.url).tune()
    assert server.counters()["jobs-created"] == 1
    assert server.counters()["uploads"] == 1


def test_failed_job_is_reported_with_the_services_reason(
    make_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()
    monkeypatch.setattr(upload_checks, "check", lambda *_a, **_o: (upload_checks.Upload("t"),) * 2)
    with pytest.raises(Failure) as caught:
        study(tmp_path, server.url, training=upload_of(3)).tune()
    assert caught.value.reason is Reason.BAD_DATA
    assert "at least 10" in caught.value.what


def test_next_try_replaces_a_failed_job_and_keeps_the_upload(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    one = study(tmp_path, server.url)
    broken = server.root / "model" / "crash-training"
    broken.touch()
    with pytest.raises(Failure) as caught:
        one.tune()
    assert caught.value.reason is Reason.NETWORK
    assert "its training process was killed" in caught.value.what
    broken.unlink()
    one.tune()
    assert [job.status for job in server.client().fine_tuning.jobs.list()] == ["succeeded", "failed"]
    assert server.counters()["uploads"] == 1


def test_silently_dropped_rows_are_reported(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server(faults=[{"kind": "drop-rows", "rows": 2}])
    one = study(tmp_path, server.url)
    one.tune()
    training = one.output("tune-hosted-s1", "training.json")
    assert training["billed_less_expected_tokens"] < 0
    assert training["billed_tokens"] + -training["billed_less_expected_tokens"] == training["expected_tokens"]


def prompted(**more: Any) -> dict[str, Any]:
    """An untuned hosted model."""
    return {"kind": "prompted", "provider": "openai", "model": "gpt-3.5-turbo-0613", **more}


def prompted_study(root: Path, url: str, *, budget_usd: float | None = None, **more: Any) -> Study:
    described = {"name": "hosted", **prompted(**more), "base_url": url}
    return study(root, url, described=described, budget_usd=budget_usd)


def test_shots_precede_the_question(
    make_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()
    requests: list[ChatRequest] = []
    answer = completions._answer
    monkeypatch.setattr(
        completions,
        "_answer",
        lambda *given: (requests.append(given[-1]), answer(*given))[1],
    )
    one = prompted_study(tmp_path, server.url, shots=2)
    one.predict("predict-hosted")
    assert len(requests) == TEST_ROWS
    roles = [message["role"] for message in requests[0].messages]
    assert roles == ["system", "user", "assistant"] * 2 + ["system", "user"]
    assert one.output("predict-hosted", "prediction.json")["shots"] == 2


def test_rate_limited_requests_are_retried(make_server: Callable[..., Server], tmp_path: Path) -> None:
    faults = [{"kind": "rate-limit", "path": "/v1/chat/completions", "retry_after_s": 0.2, "times": 4}]
    server = make_server(faults=faults)
    one = prompted_study(tmp_path, server.url)
    one.predict("predict-hosted")
    assert server.counters()["completions"] == TEST_ROWS


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m30.5s", 90.5), ("20ms", 0.02), ("6s", 6), ("2h", 7200), ("soon", 1), ("", 1)]
)
def test_rate_limit_header_durations(text: str, seconds: float) -> None:
    assert completions.duration_s(text) == pytest.approx(seconds)


def test_answers_stop_at_the_budget_and_continue_after_it_is_raised(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    # One request can cost at most 256 answer tokens at $16 and some 90 prompt tokens at $12 a million: $0.0052.
    one = study(tmp_path, server.url, budget_usd=0.0088)
    one.tune()
    with pytest.raises(Failure) as caught:
        one.predict()
    assert caught.value.reason is Reason.OVER_BUDGET
    answered = server.counters()["completions"]
    assert 0 < answered < TEST_ROWS
    Attempt(one.store, one.plan.run_id, 2).put("request.json", {"format": 1, "budget_usd": 1.0})
    one.attempt = 2
    one.predict()
    assert server.counters()["completions"] == TEST_ROWS


def test_batch_that_could_exceed_the_budget_is_not_sent(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    one = study(tmp_path, server.url, contender={"batch": True}, budget_usd=0.0045)
    one.tune()
    with pytest.raises(Failure) as caught:
        one.predict()
    assert caught.value.reason is Reason.OVER_BUDGET
    assert "batches-created" not in server.counters()


def test_rows_failed_by_the_service_are_retried_in_another_batch(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    one = study(tmp_path, server.url, contender={"batch": True})
    one.tune()
    (server.root / "model" / "crash-once").touch()
    one.predict()
    assert len(one.output("predict-hosted-s1", "predictions.jsonl")) == TEST_ROWS
    assert server.counters()["batches-created"] == 2


def test_ledger_equals_the_services_counters(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server()
    one = study(tmp_path, server.url)
    one.tune()
    one.predict()
    answers = one.output("predict-hosted-s1", "predictions.jsonl")
    meta = one.store.open(f"stages/{one.plan.stage('predict-hosted-s1').key}").manifest.meta
    assert meta["prompt_tokens"] == sum(answer["prompt_tokens"] for answer in answers)
    assert server.counters()["completions"] == len(answers)
    assert json.loads(json.dumps(meta))["answer_tokens"] > 0
