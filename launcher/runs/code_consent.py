"""Consent to run the code of a task folder: by its digest, once for each user of a machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.resolve.task_folder import folder_digest
from launcher.spec.plan import Plan
from launcher.spec.tasks import INPUT_PREFIX
from launcher.store.local_state import state_home, write_whole

#: Fewer digits of a digest could be met by other code.
_LEAST_DIGITS = 12


@dataclass(frozen=True)
class TaskCode:
    """The files of a user's task in a plan: their digests by path, and the digest of them all."""

    task: str
    files: dict[str, str]

    @property
    def digest(self) -> str:
        return folder_digest(self.files)

    @property
    def description(self) -> str:
        names = ", ".join(name for name in self.files if name.endswith(".py"))
        return f"task '{self.task}' is code of a folder ({names}), sha256 {self.digest}"


def task_code(plan: Plan) -> TaskCode | None:
    """The code that the plan's stages would run; None if its task is built in.

    Raises Failure(BAD_EXPERIMENT) if stages have different files under one name.
    """
    files: dict[str, str] = {}
    for stage in plan.stages:
        for name, sha256 in stage.inputs.items():
            if name.startswith(INPUT_PREFIX) and files.setdefault(name, sha256) != sha256:
                raise Failure(Reason.BAD_EXPERIMENT, f"stages have different files {name}", where=plan.run_id)
    if not files:
        return None
    name = str(plan.stage("prepare").settings["task"])
    return TaskCode(name, {path.removeprefix(INPUT_PREFIX): files[path] for path in sorted(files)})


@dataclass(frozen=True)
class Consent:
    """How a caller allows code: by its digest (`--allow-code`), or by an answer if there is a terminal to ask on."""

    digest: str | None = None
    ask: Callable[[str], bool] | None = None

    def check(self, plan: Plan) -> None:
        """Raises Failure(USAGE) if the plan runs code that is not allowed. What is allowed is remembered."""
        code = task_code(plan)
        if code is None:
            return
        if self.digest is not None:
            if not _matches(self.digest, code.digest):
                raise Failure(
                    Reason.USAGE,
                    f"the task's code has the sha256 {code.digest}",
                    where=f"--allow-code {self.digest}",
                    next_step="read the code, then allow this digest",
                )
        elif code.digest in _remembered():
            return
        elif self.ask is None or not self.ask(code.description):
            raise Failure(
                Reason.USAGE,
                f"{code.description}, and has not been allowed to run",
                where=plan.run_id,
                next_step=f"read the code, then: --allow-code {code.digest}",
            )
        _remember(code.digest)


def _matches(given: str, digest: str) -> bool:
    return (
        len(given) >= _LEAST_DIGITS
        and re.fullmatch(r"[0-9a-f]+", given) is not None
        and digest.startswith(given)
    )


def _path() -> Path:
    """A file of this user on this machine: a store is shared, and its writers do not decide what runs here."""
    return state_home() / "allowed-code"


def _remembered() -> list[str]:
    try:
        return _path().read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _remember(digest: str) -> None:
    known = _remembered()
    if digest in known:
        return
    _path().parent.mkdir(parents=True, exist_ok=True)
    write_whole(_path(), "".join(f"{one}\n" for one in [*known, digest]).encode("ascii"))
