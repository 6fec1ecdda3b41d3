"""Chat completions, several at a time, never more than the service allows."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import openai

from jobs.data import tokens
from jobs.hosted.client import Service
from jobs.hosted.row_ledger import Ledger
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason

#: Requests under way at once.
CONCURRENT = 8
_LOOK_S = 0.2
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?\Z")


class Throttle:
    """Holds all threads back where the service says that its limit is reached."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._until = 0.0

    def wait(self) -> None:
        with self._lock:
            left_s = self._until - time.monotonic()
        if left_s > 0:
            self._service.wait(min(left_s, self._service.patience.longest_wait_s))

    def heed(self, headers: Any) -> None:
        """Read the rate-limit headers of an answer."""
        for kind in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{kind}") == "0":
                pause_s = duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
                with self._lock:
                    self._until = max(self._until, time.monotonic() + pause_s)


def duration_s(text: str) -> float:
    """Seconds of `1m30.5s`, `20ms`, `6s`; 1 where it cannot be read."""
    match = _DURATION.match(text) if text else None
    if match is None:
        return 1.0
    hours, minutes, seconds, milliseconds = (float(part) if part else 0.0 for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def answer_row_by_row(
    context: StageContext, service: Service, ledger: Ledger, requests: list[dict[str, Any]]
) -> None:
    """Every row that the ledger lacks. Raises the first Failure once what is under way has been noted."""
    throttle = Throttle(service)
    missing = [number for number in range(len(requests)) if number not in ledger.answers]
    missing.reverse()
    running: dict[Future[dict[str, Any]], int] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(CONCURRENT, thread_name_prefix="row") as pool:
        while missing or running:
            while missing and failure is None and len(running) < CONCURRENT and not context.stop_requested:
                number = missing[-1]
                try:
                    # What is under way may cost as much each: nothing is started that could go over.
                    ledger.check_budget(*_most_tokens([*running.values(), number], requests))
                except Failure as over:
                    if not running:
                        failure = over
                    break
                missing.pop()
                running[pool.submit(_answer, service, throttle, requests[number])] = number
            if not running:
                break
            done, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                error = future.exception()
                if error is None:
                    ledger.note(number, future.result())
                else:
                    failure = failure or error
            context.heartbeat(len(ledger.answers), len(requests), "rows")
            if context.stop_requested and not running:
                break
    context.check_stop()
    if failure is not None:
        raise failure


def _most_tokens(rows: list[int], requests: list[dict[str, Any]]) -> tuple[int, int]:
    """Tokens that these requests can cost at most."""
    prompts = sum(prompt_tokens(requests[row]) for row in rows)
    return prompts, sum(requests[row]["max_tokens"] for row in rows)


def prompt_tokens(request: dict[str, Any]) -> int:
    """As a service counts them, about: 3 a message and its values, 3 for the answer's header."""
    return 3 + sum(3 + sum(map(tokens.count, message.values())) for message in request["messages"])


def _answer(service: Service, throttle: Throttle, request: dict[str, Any]) -> dict[str, Any]:
    for number in range(1, service.patience.tries + 1):
        throttle.wait()
        started = time.monotonic()
        try:
            raw = service.client.chat.completions.with_raw_response.create(**request)
        except openai.APIError as error:
            service.bear("answer a row", error, number)
            continue
        throttle.heed(raw.headers)
        return answer_of(raw.parse().model_dump(), time.monotonic() - started)
    raise AssertionError("bear raises after the last try")


def answer_of(body: Any, latency_s: float) -> dict[str, Any]:
    """A prediction from a chat completion. Raises Failure(NETWORK) where it is none."""
    try:
        choice, usage = body["choices"][0], body["usage"]
        # A refusal is an answer, and a wrong one.
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        return {
            "answer": str(text),
            "finish": "length" if choice["finish_reason"] == "length" else "stop",
            "prompt_tokens": max(0, int(usage["prompt_tokens"])),
            "answer_tokens": max(0, int(usage["completion_tokens"])),
            "latency_s": round(latency_s, 4),
        }
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise Failure(Reason.NETWORK, "the service's answer is no chat completion with usage") from None
