"""The fault matrix: lost answers, rate limits, errors, hangs, resets, expired keys, kills, server restarts.

Every run has at most one job and one upload per file, ends in success or with one clear reason, and its ledger
equals the server's counters.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai._base_client import SyncAPIClient
from serving import MODEL, Server
from staging import ROWS, TEST_ROWS, Study, study

from jobs.hosted import completions, pricing, upload_checks
from jobs.hosted.client import RetryPolicy
from jobs.hosted.journal import StoreJournal
from jobs.rehearsal import session
from launcher.outcome import Failure, Reason
from launcher.spec.providers import embedded_provider

RUNS = 240
FAST = 16
#: Short waits, otherwise like the default.
FAST_POLICY = RetryPolicy(
    tries=6, first_wait_s=0.02, longest_wait_s=1.0, timeout_s=3.0, settle_s=0.05, poll_s=0.03
)
_PATHS = (
    "/v1/files",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/[^/]+",
    "/v1/chat/completions",
    "/v1/batches",
)
_CREATED = ("/v1/files", "/v1/fine_tuning/jobs", "/v1/batches")


#: Faults and results of the runs so far.
SEEN: Counter[str] = Counter()


class Killed(BaseException):
    """Simulates SIGKILL: only the store survives."""


def key_of(seed: int) -> str:
    return f"sk-fault-{seed}"


def faults_of(seed: int) -> list[dict[str, Any]]:
    """One or two faults drawn by the seed, covering every kind in turn."""
    drawn = random.Random(seed)
    kinds = (
        "lost-answer",
        "rate-limit",
        "long-limit",
        "server-error",
        "hang",
        "reset",
        "expired-key",
        "none",
    )
    chosen = [kinds[seed % len(kinds)], *drawn.choices(kinds, k=drawn.randint(0, 1))]
    return [one for kind in chosen if kind != "none" for one in [_rule(kind, drawn, f"t{seed}")]]


def _rule(kind: str, drawn: random.Random, tenant: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"kind": kind, "tenant": tenant, "skip": drawn.randint(0, 2)}
    if kind == "lost-answer":
        rule |= {"path": drawn.choice(_CREATED), "method": "POST", "skip": 0, "times": drawn.randint(1, 2)}
    elif kind == "rate-limit":
        rule |= {"path": drawn.choice(_PATHS), "retry_after_s": 0.05, "times": drawn.randint(1, 3)}
    elif kind == "long-limit":
        rule |= {"kind": "rate-limit", "path": drawn.choice(_PATHS), "retry_after_s": 3600}
    elif kind == "server-error":
        rule |= {
            "path": drawn.choice(_PATHS),
            "status": drawn.choice([500, 502, 503]),
            "times": drawn.randint(1, 3),
        }
    elif kind == "hang":
        rule |= {"path": drawn.choice(_PATHS), "seconds": 4.0}
    elif kind == "reset":
        rule |= {"path": drawn.choice(_PATHS), "times": drawn.randint(1, 3)}
    else:
        rule |= {"path": drawn.choice(_PATHS)}
    return rule


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all seeds; each seed is a tenant with its own faults."""
    faults = [rule for seed in range(RUNS) for rule in faults_of(seed)]
    keys = {key_of(seed): f"t{seed}" for seed in range(RUNS)}
    one = Server(tmp_path_factory.mktemp("faults"), keys, faults)
    one.start()
    yield one
    one.kill()


class Steps:
    """Counts requests and journal writes; kills the process or restarts the server at chosen steps."""

    def __init__(self, server: Server, drawn: random.Random) -> None:
        self.server = server
        self.kills = {drawn.randint(1, 25) for _ in range(drawn.randint(0, 3))}
        self.restart = drawn.randint(1, 25) if drawn.random() < 0.15 else 0
        self.kills_after = drawn.random() < 0.5
        self.count = 0
        self.deaths = 0
        self.lost_answers = 0
        self.restarts = 0

    def step(self, act: Callable[[], Any], is_answer: bool = False) -> Any:
        self.count += 1
        dies = self.count in self.kills and not is_answer
        if self.count >= self.restart > 0 and threading.current_thread() is threading.main_thread():
            # In this thread only: the server ends with the thread that started it.
            self.restart = 0
            self.restarts += 1
            # The server counts answers in flight, which the client never receives.
            self.lost_answers = completions.CONCURRENT if is_answer else 0
            self.server.kill()
            self.server.start()
        self.deaths += dies
        if dies and not self.kills_after:
            raise Killed
        result = act()
        if dies:
            raise Killed
        return result


@pytest.fixture
def steps(server: Server, seed: int, monkeypatch: pytest.MonkeyPatch) -> Steps:
    counted = Steps(server, random.Random(1000 + seed))
    request, put = SyncAPIClient.request, StoreJournal.put

    def asked(self: Any, cast_to: Any, options: Any, **more: Any) -> Any:
        is_answer = "chat/completions" in str(options.url)
        return counted.step(lambda: request(self, cast_to, options, **more), is_answer)

    monkeypatch.setattr(SyncAPIClient, "request", asked)
    monkeypatch.setattr(
        StoreJournal,
        "put",
        lambda self, name, value: counted.step(lambda: put(self, name, value), "rows" in name),
    )
    monkeypatch.setattr(session, "retry_policy", lambda _url: FAST_POLICY)
    monkeypatch.setenv("OPENAI_API_KEY", key_of(seed))
    return counted


def run_stages(one: Study) -> Failure | None:
    """Like the conductor: restart a killed stage, and retry once after a transient failure."""
    failures = 0
    for name, run in (("tune-hosted-s1", one.tune), ("predict-hosted-s1", one.predict)):
        while not one.committed(name):
            try:
                run()
            except Killed:
                continue
            except Failure as failure:
                failures += 1
                SEEN["long waits"] += "asks to wait" in failure.what
                if failure.reason is not Reason.NETWORK or failures > 1:
                    return failure
    return None


def jobs_and_uploads(client: openai.OpenAI) -> tuple[list[Any], list[Any]]:
    """Jobs and uploads of one tenant, retried because a remaining fault may hit this request."""
    for _ in range(20):
        with contextlib.suppress(openai.APIError):
            uploads = [one for one in client.files.list() if one.filename.startswith("tuneyard-")]
            return list(client.fine_tuning.jobs.list(limit=100)), uploads
    pytest.fail("the server does not answer")


def check(server: Server, seed: int, steps: Steps, tmp_path: Path) -> None:
    batch = seed % 3 == 0
    one = study(tmp_path, server.url, contender={"batch": batch})
    failure = run_stages(one)
    ended = failure.text().splitlines()[0] if failure else "succeeded"
    print(f"seed {seed}: {[rule['kind'] for rule in faults_of(seed)]}, {steps.deaths} kills: {ended}")
    client = server.client(key_of(seed), timeout=30)
    steps.kills.clear()
    steps.restart = 0
    jobs, uploads = jobs_and_uploads(client)
    assert len(jobs) <= 1
    assert len(uploads) == len({file.filename for file in uploads})
    counters = server.counters(key_of(seed))
    SEEN.update(_seen(counters, steps, failure))
    assert counters.get("jobs-created", 0) == len(jobs)
    if failure is not None:
        assert failure.reason in (Reason.NETWORK, Reason.UNAUTHORIZED), failure.text()
        assert failure.what
        return
    assert [job.status for job in jobs] == ["succeeded"]
    tuned = one.output("tune-hosted-s1", "tuned.json")
    examples = [
        example
        for _, example in upload_checks.check(_training(one), limits=embedded_provider().limits, model=MODEL)[
            0
        ].examples
    ]
    assert tuned["billed_tokens"] == jobs[0].trained_tokens == pricing.billed_tokens(examples)
    assert len(one.output("tune-hosted-s1", "curve.jsonl")) == ROWS // 4
    answers = one.output("predict-hosted-s1", "predictions.jsonl")
    assert [answer["answer"] for answer in answers] == [
        f"answer to question {number}" for number in range(100, 100 + TEST_ROWS)
    ]
    if batch:
        assert counters["batches-created"] == 1
        assert "completions" not in counters
    else:
        assert 0 <= counters["completions"] - len(answers) <= steps.lost_answers


def _seen(counters: dict[str, int], steps: Steps, failure: Failure | None) -> Counter[str]:
    """Faults by kind from the server's counters, kills, restarts, and the run's result."""
    seen = Counter({"runs": 1, "kills": steps.deaths, "restarts": steps.restarts})
    for name, count in counters.items():
        if name.startswith("faults/"):
            seen[name.split("/")[1]] += count
    seen[f"ended: {failure.reason.value if failure else 'succeeded'}"] = 1
    return seen


def _training(one: Study) -> bytes:
    return one.store.open(f"stages/{one.plan.stage('prepare').key}").path("upload/train.jsonl").read_bytes()


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("seed", range(FAST))
def test_one_job_and_one_upload(server: Server, seed: int, steps: Steps, tmp_path: Path) -> None:
    check(server, seed, steps, tmp_path)


@pytest.mark.faults
@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("seed", range(FAST, RUNS))
def test_one_job_and_one_upload_full_matrix(server: Server, seed: int, steps: Steps, tmp_path: Path) -> None:
    check(server, seed, steps, tmp_path)


@pytest.mark.faults
@pytest.mark.xdist_group("faults")
def test_matrix_covers_every_kind_of_fault() -> None:
    print(dict(sorted(SEEN.items())))
    assert SEEN["runs"] >= 200, "run the whole matrix: make test-faults"
    kinds = ("lost-answer", "rate-limit", "long waits", "server-error", "hang", "reset", "expired-key")
    assert all(SEEN[kind] >= 5 for kind in (*kinds, "kills", "restarts"))
    assert SEEN["ended: succeeded"] >= 100
