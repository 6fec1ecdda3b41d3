"""Consent to run a user's own code (a task folder, a scorer): by its digest, once for each user of a machine.

A scorer that was named in a local experiment is the user's own file. One that only the store has (`launcher retry`)
may be anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.outcome import Failure, Reason
from launcher.resolve.task_folder import folder_digest
from launcher.spec.plan import Plan
from launcher.spec.tasks import INPUT_PREFIX, SCORER_PREFIX
from launcher.store.local_state import state_home, write_whole

#: Fewer digits of a digest could be met by other code.
_LEAST_DIGITS = 12


@dataclass(frozen=True)
class OwnCode:
    """A user's task or scorers in a plan: the digests of the files by path, and the digest of them all."""

    what: str
    files: dict[str, str]

    @property
    def digest(self) -> str:
        return folder_digest(self.files)

    @property
    def description(self) -> str:
        names = ", ".join(name for name in self.files if name.endswith(".py"))
        return f"{self.what} ({names}), sha256 {self.digest}"


def task_code(plan: Plan) -> OwnCode | None:
    """The code of a task folder that the plan's stages would run; None if its task is built in.

    Raises Failure(BAD_EXPERIMENT) if stages have different files under one name.
    """
    files = _files(plan, INPUT_PREFIX)
    name = str(plan.stage("prepare").settings["task"]) if files else ""
    return OwnCode(f"task '{name}' is code of a folder", files) if files else None


def scorer_code(plan: Plan) -> OwnCode | None:
    """The `module:function` scorers that the plan's stages would run; None if it has none."""
    files = _files(plan, SCORER_PREFIX)
    return OwnCode("the run's scorer is code", files) if files else None


def _files(plan: Plan, prefix: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for stage in plan.stages:
        for name, sha256 in stage.inputs.items():
            if name.startswith(prefix) and files.setdefault(name, sha256) != sha256:
                raise Failure(Reason.BAD_EXPERIMENT, f"stages have different files {name}", where=plan.run_id)
    return {path.removeprefix(prefix): files[path] for path in sorted(files)}


@dataclass(frozen=True)
class Consent:
    """How a caller allows code: by its digest (`--allow-code`), or by an answer if there is a terminal to ask on."""

    digest: str | None = None
    ask: Callable[[str], bool] | None = None

    def check(self, plan: Plan, *, from_store: bool = False) -> None:
        """Raises Failure(USAGE) if the plan runs code that is not allowed. What is allowed is remembered.

        `from_store`: the plan was read from a store, not made of an experiment and files of this machine.
        """
        if (code := task_code(plan)) is not None:
            self._check(code, plan.run_id)
        if (code := scorer_code(plan)) is not None:
            if from_store:
                self._check(code, plan.run_id)
            else:
                _remember(code.digest)

    def _check(self, code: OwnCode, run_id: str) -> None:
        if self.digest is not None:
            if not _matches(self.digest, code.digest):
                raise Failure(
                    Reason.USAGE,
                    f"the code has the sha256 {code.digest}",
                    where=f"--allow-code {self.digest}",
                    next_step="read the code, then allow this digest",
                )
        elif code.digest in _remembered():
            return
        elif self.ask is None or not self.ask(code.description):
            raise Failure(
                Reason.USAGE,
                f"{code.description}, and has not been allowed to run",
                where=run_id,
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
