"""The upload for a hosted model: OpenAI's chat format, the study's files byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable

from jobs.tasks.rows import Row


def upload_bytes(rows: Iterable[Row]) -> bytes:
    """One `{"messages": […]}` a line, ASCII with escapes, each line ended by a newline."""
    return b"".join(json.dumps({"messages": list(row.messages)}).encode() + b"\n" for row in rows)
