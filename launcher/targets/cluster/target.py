"""Target `cluster`: a run as Jobs in the site's namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher.manifests.labels import ATTEMPT_LABEL
from launcher.manifests.render import Rendered, render
from launcher.runs.preflight import require_possible, require_shared_store
from launcher.runs.submission import Submission
from launcher.spec.site import Site
from launcher.store.runs import Attempt
from launcher.targets.cluster.client import Cluster, connect, owner_reference
from launcher.targets.cluster.conductor_jobs import live_conductors
from launcher.targets.cluster.preflight import preflight
from launcher.targets.cluster.supervision import ConductorJobSupervision

if TYPE_CHECKING:
    from launcher.targets.target import Supervision


class ClusterTarget:
    """Jobs in the namespace of `site`; see `launcher.targets.target.Target`."""

    name = "cluster"

    def __init__(
        self,
        site: Site,
        overlay: dict[str, Any] | None,
        context: str | None,
        say: Callable[[str], None],
    ) -> None:
        self.site = site
        self.overlay = overlay
        self.context = context
        self.say = say
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """Connected on first use: an attempt that has ended needs no cluster."""
        if self._cluster is None:
            self._cluster = connect(self.site.namespace, self.context, self.say)
        return self._cluster

    def render(self, submission: Submission) -> Rendered | None:
        plan, attempt = submission.plan, submission.attempt
        if attempt.outcome is not None:
            return None
        require_shared_store(attempt.store.address)
        require_possible(plan, attempt.store, self.site.prices())
        return render(
            plan,
            self.site,
            attempt=attempt.number,
            budget_usd=submission.budget_usd,
            overlay=self.overlay,
        )

    def check(self, submission: Submission, rendered: Rendered | None) -> None:
        if rendered is not None:
            for warning in preflight(self.cluster, rendered, self.site):
                self.say(f"warning: {warning}")

    def start(self, attempt: Attempt, rendered: Rendered | None) -> None:
        if rendered is None or attempt.outcome is not None:
            return
        job = self.cluster.get("Job", rendered.conductor_job)
        if job is None:
            self._warn_of_takeover(attempt)
        for manifest in rendered.objects:
            applied = self.cluster.apply(_owned(manifest, job)).object
            job = applied if manifest["kind"] == "Job" else job
        # The conductor's Job comes last because it needs the others; this second pass makes it their owner.
        for manifest in rendered.objects:
            self.cluster.apply(_owned(manifest, job))

    def _warn_of_takeover(self, attempt: Attempt) -> None:
        """Warn if applying this attempt ends a live conductor of the same attempt with other manifests."""
        for other in live_conductors(self.cluster, attempt.run_id):
            if other["metadata"]["labels"].get(ATTEMPT_LABEL) == str(attempt.number):
                self.say(
                    f"warning: {other['metadata']['name']} conducts this run with another site, placement or "
                    "overlay: its stages are stopped and continue from their checkpoints as this command asks"
                )

    def supervise(self, attempt: Attempt, rendered: Rendered | None) -> Supervision:
        if rendered is None or attempt.outcome is not None:
            return _NoSupervision()
        return ConductorJobSupervision(
            attempt,
            self.cluster,
            rendered.conductor_job,
            self.say,
            start_timeout_s=self.site.start_timeout_s,
        )


def _owned(manifest: dict[str, Any], job: dict[str, Any] | None) -> dict[str, Any]:
    """The manifest as a child of the conductor's Job, deleted with it; the Job itself is returned unchanged."""
    if job is None or manifest["kind"] == "Job":
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner_reference(job)]}}


class _NoSupervision:
    """For an attempt that has ended."""

    def look(self) -> None: ...
