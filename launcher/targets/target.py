"""What every target does: the calls that `launcher.targets.runner.Runner` makes, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from launcher.runs.submission import Submission
from launcher.store.runs import Attempt

if TYPE_CHECKING:
    from launcher.manifests.render import Rendered


class Supervision(Protocol):
    """Watches an attempt's conductor while a caller waits for the attempt."""

    def look(self) -> None:
        """Check on the conductor once. Raises Failure if nothing will end the attempt any more."""
        ...


class Target(Protocol):
    """Carries runs out. `launcher.targets.runner.Runner` makes these calls in order."""

    @property
    def name(self) -> str: ...

    def render(self, submission: Submission) -> Rendered | None:
        """The manifests to apply; None if there are none (this machine, or an attempt that has ended).

        Writes nothing and contacts nothing. Raises Failure for a plan that cannot be rendered for this target.
        """
        ...

    def check(self, submission: Submission, rendered: Rendered | None) -> None:
        """Raise one Failure with every reason why the run cannot succeed here; writes nothing."""
        ...

    def start(self, attempt: Attempt, rendered: Rendered | None) -> None:
        """Ensure that a conductor carries on an open attempt; does nothing for one that has ended."""
        ...

    def supervise(self, attempt: Attempt, rendered: Rendered | None) -> Supervision: ...
