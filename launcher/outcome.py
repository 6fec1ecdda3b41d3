"""Reasons: one table of exit codes, retry decisions and advice.

The launcher and the stages use it on every target.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from launcher.system.json_text import parse_json
from launcher.system.text import first_of, printable


class Retry(Enum):
    """The budget that pays for another try; NEVER: the reason is permanent."""

    NEVER = "never"
    LOST = "lost"  # the machine took the process away
    PREEMPTED = "preempted"  # asked to stop in favour of other work
    OWN_FAILURE = "own failure"  # the program failed, perhaps by chance


#: Tries granted per reason class, the first try not counted.
RETRY_BUDGET: dict[Retry, int] = {
    Retry.NEVER: 0,
    Retry.LOST: 5,
    Retry.PREEMPTED: 20,
    Retry.OWN_FAILURE: 1,
}


class Reason(Enum):
    """How a stage, an attempt or a command ended."""

    SUCCEEDED = "succeeded"
    USAGE = "usage"
    BAD_EXPERIMENT = "bad-experiment"
    BAD_DATA = "bad-data"
    MISSING_INPUT = "missing-input"
    NO_SUCH_MODEL = "no-such-model"
    NOT_FOUND = "not-found"
    STORE_FAILED = "store-failed"
    DISK_FULL = "disk-full"
    OUT_OF_MEMORY = "out-of-memory"
    VERSION_MISMATCH = "version-mismatch"
    CORRUPT_ARTIFACT = "corrupt-artifact"
    OVER_BUDGET = "over-budget"
    UNSUPPORTED = "unsupported"
    NETWORK = "network"
    UNAUTHORIZED = "unauthorized"
    DIVERGED = "diverged"
    CANNOT_START = "cannot-start"
    NO_HEARTBEAT = "no-heartbeat"
    BLOCKED = "blocked"
    KILLED = "killed"
    TERMINATED = "terminated"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


@dataclass(frozen=True)
class Disposition:
    """Exit code, retry budget, meaning and advice of a reason."""

    exit_code: int
    retry: Retry
    meaning: str
    advice: str


DISPOSITIONS: dict[Reason, Disposition] = {
    Reason.SUCCEEDED: Disposition(0, Retry.NEVER, "finished and committed", ""),
    Reason.INTERNAL: Disposition(
        1, Retry.OWN_FAILURE, "the program failed", "read the stage's log: launcher logs RUN --stage STAGE"
    ),
    Reason.USAGE: Disposition(2, Retry.NEVER, "the command line is wrong", "see --help of the command"),
    Reason.BAD_EXPERIMENT: Disposition(
        10,
        Retry.NEVER,
        "the experiment is not valid",
        "correct what is listed",
    ),
    Reason.BAD_DATA: Disposition(
        11, Retry.NEVER, "the data cannot be used", "correct the data, then submit again"
    ),
    Reason.MISSING_INPUT: Disposition(
        12, Retry.NEVER, "an input is not there", "correct the path, or go where it can be read"
    ),
    Reason.NO_SUCH_MODEL: Disposition(
        13,
        Retry.NEVER,
        "the model cannot be found",
        "name a model of the catalogue, a hub id or a local directory",
    ),
    Reason.NOT_FOUND: Disposition(14, Retry.NEVER, "no such run or stage", "launcher list"),
    Reason.STORE_FAILED: Disposition(
        15, Retry.OWN_FAILURE, "the store cannot be read or written", "check --store and its permissions"
    ),
    Reason.DISK_FULL: Disposition(
        16,
        Retry.NEVER,
        "no space left on the device",
        "free space or name another --store",
    ),
    Reason.OUT_OF_MEMORY: Disposition(
        17, Retry.NEVER, "out of memory", "lower training.micro_batch_tokens or generation.batch_rows"
    ),
    Reason.VERSION_MISMATCH: Disposition(
        18,
        Retry.NEVER,
        "the code is not the version the plan was made for",
        "plan and submit again with this version",
    ),
    Reason.CORRUPT_ARTIFACT: Disposition(
        19,
        Retry.NEVER,
        "an artifact's bytes are not those that were committed",
        "delete the artifact's directory",
    ),
    Reason.OVER_BUDGET: Disposition(20, Retry.NEVER, "the budget is spent", "raise budget_usd"),
    Reason.UNSUPPORTED: Disposition(
        21, Retry.NEVER, "not possible with this installation", "launcher doctor shows what is"
    ),
    Reason.NETWORK: Disposition(
        22, Retry.OWN_FAILURE, "a remote service did not answer", "check the network"
    ),
    Reason.DIVERGED: Disposition(
        23, Retry.NEVER, "training diverged", "lower training.learning_rate or raise training.warmup_steps"
    ),
    Reason.BLOCKED: Disposition(24, Retry.NEVER, "an earlier stage failed", "launcher why RUN"),
    Reason.CANCELLED: Disposition(25, Retry.NEVER, "cancelled", "launcher retry RUN starts another attempt"),
    Reason.UNAUTHORIZED: Disposition(
        26, Retry.NEVER, "a service refused the key", "check the key in the environment or the Secret"
    ),
    Reason.CANNOT_START: Disposition(
        27, Retry.NEVER, "its pod could not start", "correct what it waits for, then launcher retry RUN"
    ),
    Reason.NO_HEARTBEAT: Disposition(
        28,
        Retry.OWN_FAILURE,
        "it stopped making progress and was ended",
        "read the stage's log: launcher logs RUN --stage STAGE",
    ),
    Reason.KILLED: Disposition(137, Retry.LOST, "killed from outside", "launcher retry RUN"),
    Reason.TERMINATED: Disposition(
        143, Retry.PREEMPTED, "asked to stop, progress saved", "launcher retry RUN"
    ),
}

_BY_EXIT_CODE = {d.exit_code: reason for reason, d in DISPOSITIONS.items()}


def from_exit_code(code: int) -> Reason:
    """The reason a process ended, from its exit code; negative codes are signals (subprocess's convention).

    A fallback: a termination message is more exact.
    """
    if code == -15:
        return Reason.TERMINATED
    if code < 0:
        return Reason.KILLED
    return _BY_EXIT_CODE.get(code, Reason.INTERNAL)


class Failure(Exception):
    """An expected error: what failed, where, why and the next step. Never shown with a stack trace.

    Code decides by `reason` and `cause`, never by the texts. `cause` is one word of a list that the raising
    module keeps ("quota", "no-room"); it is empty if a reason needs no finer distinction.
    """

    def __init__(
        self,
        reason: Reason,
        what: str,
        *,
        where: str = "",
        problems: tuple[str, ...] = (),
        next_step: str = "",
        cause: str = "",
    ):
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.where = where
        self.problems = problems
        self.next_step = next_step or DISPOSITIONS[reason].advice
        self.cause = cause

    @property
    def exit_code(self) -> int:
        return DISPOSITIONS[self.reason].exit_code

    def text(self) -> str:
        """The message: one line, a line per problem, and the next step; safe to print on a terminal."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [head, *(f"  {problem}" for problem in self.problems)]
        if self.next_step:
            lines.append(f"next: {self.next_step}")
        return printable("\n".join(lines), keep="\n")

    def about(self, run_id: str, stage: str) -> Failure:
        """The same failure with RUN and STAGE of its next step replaced, ready to copy to a shell."""
        step = re.sub(r"\bRUN\b", run_id, self.next_step)
        return self.with_next_step(re.sub(r"\bSTAGE\b", stage, step))

    def with_next_step(self, next_step: str) -> Failure:
        """The same failure with another next step."""
        return Failure(
            self.reason,
            self.what,
            where=self.where,
            problems=self.problems,
            next_step=next_step,
            cause=self.cause,
        )

    def to_json(self) -> dict[str, Any]:
        value = {
            "reason": self.reason.value,
            "what": self.what,
            "where": self.where,
            "problems": list(self.problems),
            "next": self.next_step,
        }
        return value | ({"cause": self.cause} if self.cause else {})

    @classmethod
    def from_json(cls, value: Any) -> Failure:
        """The failure from what `to_json` returned. Raises ValueError for anything else."""
        if not isinstance(value, dict):
            raise ValueError("a failure must be an object")
        texts = {name: value.get(name, "") for name in ("what", "where", "next", "cause")}
        problems = value.get("problems", [])
        if not isinstance(problems, list) or not all(
            isinstance(t, str) for t in (*texts.values(), *problems)
        ):
            raise ValueError("a failure must hold texts")
        return cls(
            Reason(value.get("reason")),
            texts["what"],
            where=texts["where"],
            problems=tuple(problems),
            next_step=texts["next"],
            cause=texts["cause"],
        )

    @classmethod
    def from_message(cls, message: bytes | str) -> Failure:
        """The failure from its JSON text, such as a termination message. Raises ValueError for anything else."""
        return cls.from_json(parse_json(message))

    def termination_message(self, limit_bytes: int = 4000) -> str:
        """ASCII JSON below Kubernetes' limit of 4 KB for termination messages; problems are cut first, then texts."""
        value = self.to_json()
        kept = len(self.problems)
        while len(encoded := json.dumps(value)) > limit_bytes and kept:
            kept //= 2
            value["problems"] = first_of(self.problems, kept)
        # One character takes up to twelve bytes of JSON.
        limit_characters = limit_bytes // 4
        while len(encoded) > limit_bytes:
            value |= {name: value[name][:limit_characters] for name in ("what", "where", "next")}
            limit_characters //= 2
            encoded = json.dumps(value)
        return encoded
