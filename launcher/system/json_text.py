"""JSON from outside, read so that every malformed text is a ValueError."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text.

    Raises ValueError for what is not JSON, and also for nesting that exhausts the interpreter's stack, for NaN, and for
    numbers too large for a float, which `json.loads` reports in other ways or accepts.
    """
    try:
        return json.loads(data, parse_float=_finite, parse_constant=_reject)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _reject(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
