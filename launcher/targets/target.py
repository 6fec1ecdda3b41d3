"""Where a run goes: this machine, or Jobs in a cluster. What every verb asks of either is the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from launcher.costs import budget
from launcher.outcome import Failure, Reason
from launcher.runs import submission
from launcher.spec.plan import Plan
from launcher.spec.site import Site
from launcher.store import Store
from launcher.store.runs import Attempt
from launcher.targets import local

if TYPE_CHECKING:
    from launcher.manifests.render import Rendered
    from launcher.targets.cluster.client import Cluster

_LEAVING_S = 20.0


class Supervision(Protocol):
    """Looks after an attempt's conductor on behalf of somebody who waits."""

    def look(self) -> None: ...


class Target(Protocol):
    """A place to carry runs out."""

    @property
    def name(self) -> str: ...

    def check(self, plan: Plan, store: Store, number: int, budget_usd: float | None) -> None:
        """Refuse before anything is written or spent what cannot end well there; all problems at once."""
        ...

    def start(self, attempt: Attempt) -> None:
        """Make sure that a conductor carries on an open attempt."""
        ...

    def supervise(self, attempt: Attempt) -> Supervision: ...


def target(
    name: str,
    site: Site,
    *,
    overlay: dict[str, Any] | None = None,
    context: str | None = None,
    say: Callable[[str], None],
) -> Target:
    """The target of that name. `overlay`, `context` (of the kubeconfig) and `say` matter to a cluster only."""
    return Local(site) if name == "local" else InCluster(site, overlay, context, say)


class Local:
    """Subprocesses of a detached conductor on this machine."""

    name = "local"

    def __init__(self, site: Site) -> None:
        self.site = site

    def check(self, plan: Plan, store: Store, number: int, budget_usd: float | None) -> None:
        submission.preflight_local(plan, store, self.site.prices())

    def start(self, attempt: Attempt) -> None:
        local.start(attempt)

    def supervise(self, attempt: Attempt) -> Supervision:
        return local.Supervision(attempt)


class InCluster:
    """Jobs in the site's namespace."""

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
        """Reached on first use: an attempt that has ended needs none."""
        if self._cluster is None:
            self._cluster = reached(self.site.namespace, self.context, self.say)
        return self._cluster

    def check(self, plan: Plan, store: Store, number: int, budget_usd: float | None) -> None:
        from launcher.targets.cluster.preflight import preflight

        if Attempt(store, plan.run_id, number).outcome is not None:
            return
        if not store.address.startswith("s3:"):
            raise Failure(
                Reason.UNSUPPORTED,
                "pods cannot reach a directory of this machine",
                where=f"--store {store.address}",
                next_step="name a store that both see, store.outside and store.inside (s3://…) in the site file; "
                "or run it on this machine: --target local",
            )
        submission.preflight_anywhere(plan, store, self.site.prices())
        rendered = self._render(plan, number, budget_usd)
        for warning in preflight(self.cluster, rendered, self.site):
            self.say(f"warning: {warning}")

    def start(self, attempt: Attempt) -> None:
        if attempt.outcome is not None:
            return
        rendered = self._rendered(attempt)
        job = self.cluster.get("Job", rendered.conductor_job)
        if job is None:
            self._say_what_ends(attempt)
        for manifest in rendered.objects:
            applied = self.cluster.apply(_owned(manifest, job)).object
            job = applied if manifest["kind"] == "Job" else job
        # What the conductor's Job needs had to be there first; it goes when the Job goes.
        for manifest in rendered.objects:
            self.cluster.apply(_owned(manifest, job))

    def _say_what_ends(self, attempt: Attempt) -> None:
        """Another conductor of the run would be taken over from: whoever only meant to look on can still say so."""
        from launcher.manifests.render import ATTEMPT_LABEL
        from launcher.targets.cluster.backend import live_conductors

        for other in live_conductors(self.cluster, attempt.run_id):
            if other["metadata"]["labels"].get(ATTEMPT_LABEL) == str(attempt.number):
                self.say(
                    f"warning: {other['metadata']['name']} conducts this run, applied with another site, placement "
                    "or overlay: its stages are stopped, and go on from their checkpoints as this command says"
                )

    def supervise(self, attempt: Attempt) -> Supervision:
        from launcher.targets.cluster.supervision import Supervision as OfItsJob

        if attempt.outcome is not None:
            return _Nothing()
        return OfItsJob(
            attempt,
            self.cluster,
            self._rendered(attempt).conductor_job,
            self.say,
            start_timeout_s=self.site.start_timeout_s,
        )

    def _rendered(self, attempt: Attempt) -> Rendered:
        return self._render(attempt.plan, attempt.number, budget.budget_usd(attempt))

    def _render(self, plan: Plan, number: int, budget_usd: float | None) -> Rendered:
        from launcher.manifests.render import render

        return render(plan, self.site, attempt=number, budget_usd=budget_usd, overlay=self.overlay)


def reached(namespace: str | None, context: str | None, say: Callable[[str], None]) -> Cluster:
    """The namespace's cluster, which has answered. Raises Failure soon where it does not.

    What is asked of it afterwards is waited for with patience, and `say` is told while it is.
    """
    from launcher.targets.cluster.client import Cluster

    cluster = Cluster.connect(namespace, context)
    cluster.connection.say = say
    cluster.connection.reach(where=cluster.where)
    return cluster


def refuse_what_pods_cannot_reach(store_address: str) -> None:
    """Raises Failure(UNSUPPORTED) for a store that only this machine sees."""
    if not store_address.startswith("s3:"):
        raise Failure(
            Reason.UNSUPPORTED,
            "pods cannot reach a directory of this machine",
            where=f"--store {store_address}",
            next_step="name a store that both see, store.outside and store.inside (s3://…) in the site file; "
            "or run it on this machine: --target local",
        )


def _owned(manifest: dict[str, Any], job: dict[str, Any] | None) -> dict[str, Any]:
    """A manifest that the garbage collector removes after the conductor's Job; of the Job itself, as it is."""
    from launcher.targets.cluster.client import owner_reference

    if job is None or manifest["kind"] == "Job":
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner_reference(job)]}}


class _Nothing:
    """An attempt that has ended needs nobody to look after it."""

    def look(self) -> None: ...


def _grace_s(attempt: Attempt) -> float:
    """How long a stage may take to save its progress and end."""
    if attempt.target == "local":
        return local.GRACE_S
    from launcher.manifests.render import GRACE_TRAINER_S

    return GRACE_TRAINER_S


def wait_until_left(attempt: Attempt) -> None:
    """After an attempt was closed: until its conductor has stopped the stages and left. Raises Failure(INTERNAL)."""
    deadline = time.monotonic() + _grace_s(attempt) + _LEAVING_S
    while attempt.conducted:
        if time.monotonic() > deadline:
            raise Failure(
                Reason.INTERNAL,
                "it is still stopping",
                where=attempt.run_id,
                next_step=f"launcher status {attempt.run_id}",
            )
        time.sleep(max(0.05, attempt.store.poll_interval_s))
