"""Credentials that are mounted as files, as Kubernetes mounts a Secret: read again while the process runs.

TUNEYARD_STORE_CREDENTIALS names a directory with `access_key`, `secret_key` and, where they are
temporary, `session_token`. The values never leave this module but for the client.
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
#: botocore asks for fresh credentials 15 minutes before the old ones end: so they are read every 5 minutes.
_HOLD_S = 20 * 60


@dataclass(frozen=True)
class Keys:
    """What signs requests; its text shows nothing of it."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)


def directory() -> Path | None:
    """Where the credentials are mounted; None where they come by the usual chain."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def read(mounted: Path) -> Keys:
    """The keys as they are now. Raises Failure(STORE_FAILED) where a file is missing or empty."""
    # A Secret's files are links into one directory that is swapped whole: both keys from the same one.
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
    """The mounted keys as botocore takes credentials that change."""

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
