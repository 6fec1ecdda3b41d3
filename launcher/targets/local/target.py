"""Target `local`: runs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.runs.preflight import require_this_machine
from launcher.runs.submission import Submission
from launcher.spec.key_hosts import require_bound_hosts
from launcher.spec.site import Site
from launcher.store.runs import Attempt
from launcher.targets.local.detached import ensure_conductor
from launcher.targets.local.supervision import ConductorSupervision

if TYPE_CHECKING:
    from launcher.manifests.render import Rendered
    from launcher.targets.target import Supervision


class LocalTarget:
    """Subprocesses of a detached conductor; see `launcher.targets.target.Target`. Nothing is rendered."""

    name = "local"

    def __init__(self, site: Site) -> None:
        self.site = site

    def render(self, submission: Submission) -> Rendered | None:
        return None

    def check(self, submission: Submission, rendered: Rendered | None) -> None:
        if submission.attempt.outcome is None:
            require_bound_hosts(submission.plan, self.site)
        require_this_machine(submission.plan, submission.attempt.store, self.site.prices())

    def start(self, attempt: Attempt, rendered: Rendered | None) -> None:
        ensure_conductor(attempt.store, attempt.run_id, attempt.number)

    def supervise(self, attempt: Attempt, rendered: Rendered | None) -> Supervision:
        return ConductorSupervision(attempt)
