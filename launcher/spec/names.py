"""Names and paths that are read from a store, a lock or a plan: parsed once, into types that cannot escape.

The owner of a bucket and the author of a lock file choose these strings. Every model that reads one uses a type of
this module, so later code can join a name to a directory or to a command line without checking it again.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_STAGE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,15}-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]{0,127}(/[\w.-]+)*")
_UNSAFE_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


def is_run_id(text: str) -> bool:
    """Whether `text` has the form of a run id, such as `sql-3f9a1c20`."""
    return _RUN_ID.fullmatch(text) is not None


def relative_path(text: str) -> str:
    """`text`, if it is a path below some directory.

    Raises ValueError for absolute paths, `..`, empty parts, hidden names, backslashes and control characters.
    """
    parts = text.split("/")
    if any(not part or part.startswith(".") for part in parts) or _UNSAFE_CHARACTER.search(text):
        raise ValueError(f"{text!r} cannot be a name in the store")
    return text


def _matching(pattern: re.Pattern[str], meaning: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text) or ".." in text:
            raise ValueError(f"must be {meaning}")
        return text

    return AfterValidator(check)


#: A Kubernetes label: 1 to 63 of a-z, 0-9 and '-'.
StageName = Annotated[str, _matching(_STAGE_NAME, "1 to 63 of a-z, 0-9 and '-', neither first nor last '-'")]
RunId = Annotated[str, _matching(_RUN_ID, "a run id, such as sql-3f9a1c20")]
Sha256 = Annotated[str, _matching(_SHA256, "64 hex digits")]
RelativePath = Annotated[str, AfterValidator(relative_path)]
#: Only this form reaches pip: no URL, no file, no option.
Requirement = Annotated[str, _matching(_REQUIREMENT, "PACKAGE==VERSION")]
Repository = Annotated[str, _matching(_REPOSITORY, "a repository of the model hub, OWNER/NAME")]
Revision = Annotated[str, _matching(_REVISION, "a commit, branch or tag")]
