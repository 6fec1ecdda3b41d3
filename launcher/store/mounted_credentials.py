"""Credentials mounted as files, for example from a Kubernetes Secret; read again while the process runs.

TUNEYARD_STORE_CREDENTIALS names a directory with `access_key`, `secret_key` and, for temporary keys,
`session_token`. Only the client gets the values.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.credentials

from launcher.outcome import Failure, Reason

VARIABLE = "TUNEYARD_STORE_CREDENTIALS"
#: botocore refreshes 15 minutes before the end: the files are read every 5 minutes.
_HOLD_S = 20 * 60


@dataclass(frozen=True)
class Keys:
    """Keys that sign requests; not shown by repr."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)


def directory() -> Path | None:
    """The directory of mounted credentials; None if they come from the usual chain."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def read(mounted: Path) -> Keys:
    """The current keys. Raises Failure(STORE_FAILED) if a file is missing or empty."""
    # A Secret's files are links into a directory that is replaced whole: read both keys from one directory.
    whole = (mounted / "access_key").resolve().parent
    found = {name: _text(whole / name) for name in ("access_key", "secret_key", "session_token")}
    missing = [name for name in ("access_key", "secret_key") if not found[name]]
    if missing:
        raise Failure(
            Reason.STORE_FAILED,
            f"the store's credentials have no {' and no '.join(missing)}",
            where=str(mounted),
            next_step="give the Secret that the site's configuration names these keys",
        )
    return Keys(found["access_key"], found["secret_key"], found["session_token"] or None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Provider(botocore.credentials.CredentialProvider):  # type: ignore[misc]
    """The mounted keys as refreshable botocore credentials."""

    METHOD = CANONICAL_NAME = "mounted-files"

    def __init__(self, read: Callable[[], Keys]) -> None:
        self._read = read

    def load(self) -> Any:
        return botocore.credentials.RefreshableCredentials.create_from_metadata(
            self._metadata(), self._metadata, self.METHOD
        )

    def _metadata(self) -> dict[str, str | None]:
        keys = self._read()
        until = datetime.now(UTC) + timedelta(seconds=_HOLD_S)
        return {
            "access_key": keys.access_key,
            "secret_key": keys.secret_key,
            "token": keys.session_token,
            "expiry_time": until.isoformat(),
        }
