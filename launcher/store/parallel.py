"""Tasks in parallel threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager


def run_all(tasks: Sequence[Callable[[], None]], workers: int) -> None:
    """Run every task; after a failure no further task starts, and the failure is raised once the others end."""
    with started(tasks, workers) as futures:
        for future in futures:
            future.result()


@contextmanager
def started(tasks: Sequence[Callable[[], None]], workers: int) -> Iterator[list[Future[None]]]:
    """Start the tasks in order, at most `workers` at a time; leaving cancels those that have not started.

    Raises the first failure of a task, even one whose result the caller has not asked for.
    """
    failures: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        if failures:
            raise failures[0]
        try:
            task()
        except BaseException as error:
            failures.append(error)
            raise

    with ThreadPoolExecutor(max(1, min(workers, len(tasks)))) as pool:
        futures = [pool.submit(guarded, task) for task in tasks]
        try:
            yield futures
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            if failures:
                raise failures[0] from None
            raise
    if failures:
        raise failures[0]
