"""Submits runs: `submit` is `start(check(render(submission)))`, so what is checked is what is started.

`launcher submit`, `launcher retry` and the Python API all start runs here, and Helm renders once per run started.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from launcher.costs import budget
from launcher.outcome import Failure, Reason
from launcher.runs.code_consent import Consent
from launcher.runs.submission import Submission
from launcher.spec.site import Site
from launcher.store.runs import Attempt
from launcher.targets.local.backend import GRACE_S
from launcher.targets.local.target import LocalTarget
from launcher.targets.target import Supervision, Target

if TYPE_CHECKING:
    from launcher.manifests.render import Rendered

_POLL_S = 0.2
#: What a conductor needs to end after its stages have ended.
_LEAVING_S = 20.0


@dataclass(frozen=True)
class Prepared:
    """A submission with the manifests made for it; nothing has been written or applied."""

    submission: Submission
    rendered: Rendered | None


@dataclass(frozen=True)
class Run:
    """A submitted run: its newest attempt, under way or ended."""

    attempt: Attempt
    target: Target
    rendered: Rendered | None

    @property
    def id(self) -> str:
        return self.attempt.run_id

    @property
    def outcome(self) -> dict[str, Any] | None:
        """How the attempt ended; None while it is open."""
        outcome = self.attempt.outcome
        return outcome.to_json() if outcome else None

    @property
    def verdict(self) -> dict[str, Any] | None:
        """verdict.json; None until the run has succeeded."""
        value = self.attempt.get("verdict.json")
        return value if isinstance(value, dict) else None

    def supervise(self) -> Supervision:
        """What keeps the conductor alive, or notices that it is gone, while a caller waits."""
        return self.target.supervise(self.attempt, self.rendered)

    def wait(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until the attempt has ended and return its outcome. Raises TimeoutError, or Failure if it failed."""
        supervision = self.supervise()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (outcome := self.attempt.outcome) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.id} is still running")
            supervision.look()
            time.sleep(_POLL_S)
        if outcome.failure is not None:
            raise outcome.failure
        return outcome.to_json()


class Runner:
    """Carries submissions out on one target. `consent` allows the code of a user's own task."""

    def __init__(self, target: Target, consent: Consent = Consent()) -> None:  # noqa: B008
        self.target = target
        self.consent = consent

    def submit(self, submission: Submission, *, opened: Callable[[Attempt], None] | None = None) -> Run:
        """Start the submission, or join it if its attempt is under way; returns at once.

        `opened` is called once the attempt is in the store and before its conductor starts.
        """
        return self.start(self.check(self.render(submission)), opened=opened)

    def render(self, submission: Submission) -> Prepared:
        """The manifests of the submission; see `Target.render`."""
        return Prepared(submission, self.target.render(submission))

    def check(self, prepared: Prepared) -> Prepared:
        """The same submission if it can succeed on the target. Raises Failure with every reason why it cannot."""
        self.target.check(prepared.submission, prepared.rendered)
        if prepared.submission.attempt.outcome is None:
            self.consent.check(prepared.submission.plan, from_store=prepared.submission.locations is None)
        return prepared

    def start(self, prepared: Prepared, *, opened: Callable[[Attempt], None] | None = None) -> Run:
        """Push the inputs, open the attempt and start its conductor."""
        attempt = prepared.submission.open()
        cap_usd = budget.budget_usd(attempt)
        if cap_usd != prepared.submission.budget_usd:
            # Another submit has just opened the same attempt, with another cap: the first cap holds.
            prepared = self.render(replace(prepared.submission, budget_usd=cap_usd))
        if opened is not None:
            opened(attempt)
        self.target.start(attempt, prepared.rendered)
        return Run(attempt, self.target, prepared.rendered)


def make_target(
    name: str,
    site: Site,
    *,
    overlay: dict[str, Any] | None = None,
    context: str | None = None,
    say: Callable[[str], None],
) -> Target:
    """The target `local` or `cluster`; only the latter uses `overlay`, `context` (of the kubeconfig) and `say`."""
    if name == "local":
        return LocalTarget(site)
    from launcher.targets.cluster.target import ClusterTarget

    return ClusterTarget(site, overlay, context, say)


def _grace_s(attempt: Attempt) -> float:
    """How long a stage may take to save its progress and end."""
    if attempt.target == "local":
        return GRACE_S
    from launcher.manifests.run_values import GRACE_TRAINER_S

    return GRACE_TRAINER_S


def wait_until_left(attempt: Attempt) -> None:
    """Wait until the conductor of a closed attempt has stopped its stages and ended. Raises Failure(INTERNAL)."""
    deadline = time.monotonic() + _grace_s(attempt) + _LEAVING_S
    while attempt.has_live_conductor:
        if time.monotonic() > deadline:
            raise Failure(
                Reason.INTERNAL,
                "it is still stopping",
                where=attempt.run_id,
                next_step=f"launcher status {attempt.run_id}",
            )
        time.sleep(max(0.05, attempt.store.poll_interval_s))
