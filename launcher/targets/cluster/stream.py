"""A streamed answer of the API server: a watch or a followed log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import urllib3.exceptions

from launcher.outcome import Failure


class Stream:
    """The lines of an endless answer; another thread may close it."""

    def __init__(self, response: Any, failure: Callable[[Exception], Failure]):
        self._response = response
        self._failure = failure
        self._closed = False

    def lines(self) -> Iterator[bytes]:
        """Lines with their line feed, as they arrive; the last may lack it. Raises Failure on a lost connection."""
        rest = b""
        try:
            for chunk in self._response.stream(65536):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line + b"\n"
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # The latter two: another thread has closed the response.
            if self._closed:
                return
            raise self._failure(error) from None
        finally:
            self._response.close()
        if rest and not self._closed:
            yield rest

    def close(self) -> None:
        """End `lines` in the thread that reads."""
        self._closed = True
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            return  # already read to its end
