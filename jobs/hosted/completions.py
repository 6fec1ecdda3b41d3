"""Chat completions: concurrent requests within the service's rate limits."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import openai

from jobs.hosted.chat import Answer, ChatRequest
from jobs.hosted.client import Service, is_ambiguous
from jobs.hosted.row_ledger import RowLedger
from jobs.stage import StageContext
from launcher.outcome import Failure

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
    context: StageContext, service: Service, ledger: RowLedger, requests: list[ChatRequest]
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
                request = requests[missing[-1]]
                most_usd = ledger.most_usd(request)
                if running and not ledger.spending.fits(most_usd):
                    break  # those in flight may cost less than is reserved for them
                try:
                    ledger.spending.reserve(most_usd)
                except Failure as over:
                    failure = over
                    break
                running[pool.submit(_answer, service, throttle, ledger, request)] = missing.pop()
            if not running:
                break
            done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                error = future.exception()
                most_usd = ledger.most_usd(requests[number])
                if error is None:
                    ledger.add(number, future.result(), most_usd)
                else:
                    ledger.spending.settle(most_usd, 0.0)
                    failure = failure or error
            context.heartbeat(len(ledger.answers), len(requests), "rows")
            if context.stop_requested and not running:
                break
    context.check_stop()
    if failure is not None:
        raise failure


def most_in_flight_usd(ledger: RowLedger, requests: list[ChatRequest]) -> float:
    """The most that the requests in flight can cost together."""
    return sum(sorted(map(ledger.most_usd, requests), reverse=True)[:CONCURRENT])


def _answer(service: Service, throttle: Throttle, ledger: RowLedger, request: ChatRequest) -> Answer:
    for number in range(1, service.retry_policy.tries + 1):
        throttle.wait()
        service.check_lease()
        started = time.monotonic()
        try:
            raw = service.client.chat.completions.with_raw_response.create(**request.to_json())
        except openai.APIError as error:
            if is_ambiguous(error):
                ledger.spending.lose(ledger.most_usd(request), "the response to a request was lost")
            service.retry_or_raise("answer a row", error, number)
            continue
        throttle.update(raw.headers)
        try:
            return Answer.from_completion(raw.parse().model_dump(), time.monotonic() - started)
        except Failure:
            ledger.spending.lose(ledger.most_usd(request), "a response without usage")
            raise
    raise AssertionError("retry_or_raise raises after the last try")
