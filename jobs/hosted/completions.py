"""Chat completions: concurrent requests within the service's rate limits."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import openai

from jobs.data import tokens
from jobs.hosted.client import Service
from jobs.hosted.row_ledger import Answer, RowLedger
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason

#: Requests in flight.
CONCURRENT = 8
_POLL_S = 0.2
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?\Z")


class Throttle:
    """Pauses all threads while the service reports an exhausted rate limit."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._until = 0.0

    def wait(self) -> None:
        with self._lock:
            left_s = self._until - time.monotonic()
        if left_s > 0:
            self._service.wait(min(left_s, self._service.retry_policy.longest_wait_s))

    def update(self, headers: Any) -> None:
        """Read the rate-limit headers of a response."""
        for kind in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{kind}") == "0":
                pause_s = duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
                with self._lock:
                    self._until = max(self._until, time.monotonic() + pause_s)


def duration_s(text: str) -> float:
    """Seconds of `1m30.5s`, `20ms`, `6s`; 1 for any other text."""
    match = _DURATION.match(text) if text else None
    if match is None:
        return 1.0
    hours, minutes, seconds, milliseconds = (float(part) if part else 0.0 for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def answer_row_by_row(
    context: StageContext, service: Service, ledger: RowLedger, requests: list[dict[str, Any]]
) -> None:
    """Answer every row that the ledger lacks. The first Failure is raised after the requests in flight end."""
    throttle = Throttle(service)
    missing = [number for number in range(len(requests)) if number not in ledger.answers]
    missing.reverse()
    running: dict[Future[Answer], int] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(CONCURRENT, thread_name_prefix="row") as pool:
        while missing or running:
            while missing and failure is None and len(running) < CONCURRENT and not context.stop_requested:
                number = missing[-1]
                try:
                    # Requests in flight count with the most that they can cost.
                    ledger.check_budget(*_most_tokens([*running.values(), number], requests))
                except Failure as over:
                    if not running:
                        failure = over
                    break
                missing.pop()
                running[pool.submit(_answer, service, throttle, requests[number])] = number
            if not running:
                break
            done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                error = future.exception()
                if error is None:
                    ledger.add(number, future.result())
                else:
                    failure = failure or error
            context.heartbeat(len(ledger.answers), len(requests), "rows")
            if context.stop_requested and not running:
                break
    context.check_stop()
    if failure is not None:
        raise failure


def _most_tokens(rows: list[int], requests: list[dict[str, Any]]) -> tuple[int, int]:
    """Upper bounds of the prompt and answer tokens of these requests."""
    prompts = sum(prompt_tokens(requests[row]) for row in rows)
    return prompts, sum(requests[row]["max_tokens"] for row in rows)


def prompt_tokens(request: dict[str, Any]) -> int:
    """Estimate of a service's count: 3 and the values for each message, and 3 for the answer's header."""
    return 3 + sum(3 + sum(map(tokens.count, message.values())) for message in request["messages"])


def _answer(service: Service, throttle: Throttle, request: dict[str, Any]) -> Answer:
    for number in range(1, service.retry_policy.tries + 1):
        throttle.wait()
        started = time.monotonic()
        try:
            raw = service.client.chat.completions.with_raw_response.create(**request)
        except openai.APIError as error:
            service.retry_or_raise("answer a row", error, number)
            continue
        throttle.update(raw.headers)
        return answer_of(raw.parse().model_dump(), time.monotonic() - started)
    raise AssertionError("retry_or_raise raises after the last try")


def answer_of(body: Any, latency_s: float) -> Answer:
    """The answer in a chat completion. Raises Failure(NETWORK) if the body is not a chat completion."""
    try:
        choice, usage = body["choices"][0], body["usage"]
        # A refusal counts as an answer, which is wrong.
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        return Answer(
            answer=str(text),
            finish="length" if choice["finish_reason"] == "length" else "stop",
            prompt_tokens=max(0, int(usage["prompt_tokens"])),
            answer_tokens=max(0, int(usage["completion_tokens"])),
            latency_s=round(latency_s, 4),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise Failure(Reason.NETWORK, "the service's response is not a chat completion with usage") from None
