"""The conductor's pod: `python -m launcher.targets.cluster.conductor_main`, started by the run's conductor Job.

It carries one attempt to its end with stages as Jobs. It may die at any moment: its Job restarts it, and all state is
in the API and the store. Exit codes: the attempt's own once it is closed; 143 after SIGTERM; 75 if the store or the
API stayed unreachable, so that the Job restarts it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher.manifests.labels import ATTEMPT_LABEL, RUN_LABEL
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.runs import finalize
from launcher.runs.conductor import Conductor
from launcher.spec.plan import Plan, parse
from launcher.store import Store, open_store
from launcher.store.lease import LeaseLost
from launcher.store.records import MeasuredTry, Note, Request
from launcher.store.runs import CONDUCTOR_HEARTBEAT_INTERVAL_S, Attempt
from launcher.targets.cluster.api_errors import is_unauthorized
from launcher.targets.cluster.backend import ClusterBackend
from launcher.targets.cluster.client import Cluster, owner_reference
from launcher.targets.cluster.conductor_jobs import take_over
from launcher.targets.cluster.conductor_lease import wait_for_run
from launcher.targets.cluster.objects import Object, job_has_ended, name_of

#: sysexits.h: temporary failure.
_TRY_AGAIN = 75
_TERMINATED = DISPOSITIONS[Reason.TERMINATED].exit_code
#: Reasons that may pass without a fault of the run, and for how many seconds this pod retries.
_OUTAGES = {Reason.NETWORK: 600.0, Reason.STORE_FAILED: 60.0}
_RETRY_INTERVAL_S = 3.0
#: How long a rejected token is retried. The token of a pod that was deleted a minute ago is void; such a pod, for
#: example on a lost node, must not close the attempt.
_UNAUTHORIZED_S = 30.0
_TERMINATION_LOG = Path("/dev/termination-log")


@dataclass(frozen=True)
class Settings:
    """The command line of the pod."""

    #: Directory of the run's ConfigMap.
    run: Path
    store: str
    attempt: int
    #: Name of the Job that this pod belongs to.
    job: str
    namespace: str
    start_timeout_s: float = 900.0


class _Shutdown:
    """Turns SIGTERM and SIGINT into a stop request for the conductor."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.conductor: Conductor | None = None
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until a stop is requested; whether it is."""
        return self._event.wait(seconds)

    def _stop(self, *_: object) -> None:
        self._event.set()
        if self.conductor is not None:
            self.conductor.request_stop()


def conduct(settings: Settings) -> int:
    """Carry the attempt to its end, across outages of the store and the API; returns the exit code."""
    shutdown, outage_since = _Shutdown(), 0.0
    while True:
        try:
            return _conduct_once(settings, shutdown)
        except LeaseLost as lost:
            return _end(_TRY_AGAIN, lost)
        except Failure as failure:
            print(failure.text(), file=sys.stderr, flush=True)
            retry_s = _retry_s(failure)
            if retry_s is None:
                return _close_failed(settings, failure)
            now = time.monotonic()
            new = not outage_since or now - outage_since >= 2 * max(_OUTAGES.values())
            outage_since = now if new else outage_since
            if shutdown.requested:
                return _TERMINATED
            if now - outage_since > retry_s:
                return _end(_TRY_AGAIN, failure)
            time.sleep(_RETRY_INTERVAL_S)
        except Exception as error:
            traceback.print_exc()
            internal = Failure(
                Reason.INTERNAL,
                f"the conductor failed: {type(error).__name__}: {error}",
                where=settings.job,
                next_step=f"read its log: kubectl logs job/{settings.job}",
            )
            return _close_failed(settings, internal)


def _retry_s(failure: Failure) -> float | None:
    """How long to retry before the Job restarts this pod; None for a failure that closes the attempt."""
    return _UNAUTHORIZED_S if is_unauthorized(failure) else _OUTAGES.get(failure.reason)


def _conduct_once(settings: Settings, shutdown: _Shutdown) -> int:
    plan = parse((settings.run / "plan.json").read_bytes(), "plan.json")
    store = open_store(settings.store, patient=True)
    attempt = open_attempt(
        plan,
        store,
        settings.attempt,
        Request.read(json.loads((settings.run / "request.json").read_bytes()), "request.json"),
    )
    if attempt.outcome is not None and attempt.conductor_exited:
        return _exit_code(attempt)
    # An attempt that was closed while no conductor ran may have running stages to stop and to account for.
    cluster = Cluster.connect(namespace=settings.namespace)
    own = cluster.get("Job", settings.job)
    if own is None or shutdown.requested:
        return _TERMINATED  # the Job was deleted, and its children with it
    take_over(cluster, attempt, own)
    lease = wait_for_run(cluster, store, attempt, own, shutdown.wait)
    if lease is None:
        return _TERMINATED if shutdown.requested else _exit_code(attempt)
    with lease:
        return _conduct_with_lease(settings, shutdown, plan, attempt.under(lease), cluster, own)


def _conduct_with_lease(
    settings: Settings, shutdown: _Shutdown, plan: Plan, attempt: Attempt, cluster: Cluster, own: Object
) -> int:
    jobs = {
        stage.name: json.loads((settings.run / f"job-{stage.name}.json").read_bytes())
        for stage in plan.stages
    }
    backend = ClusterBackend(
        plan,
        cluster,
        jobs,
        owner_reference(own),
        start_timeout_s=settings.start_timeout_s,
        keep_log=partial(_keep_log, cluster, attempt),
        earlier=attempt.conductor.measured,
    )
    try:
        return _run(plan, attempt.store, attempt, backend, shutdown)
    finally:
        backend.close()
        print(f"requests to the API: {cluster.requests}", flush=True)


def _run(plan: Plan, store: Store, attempt: Attempt, backend: ClusterBackend, shutdown: _Shutdown) -> int:
    heartbeat = _Heartbeat(attempt, backend)

    def sleep(seconds: float) -> None:
        backend.wait(seconds)
        heartbeat.put_if_due()

    heartbeat.put()
    shutdown.conductor = conductor = Conductor(plan, store, attempt, backend, sleep=sleep)
    if shutdown.requested:
        conductor.request_stop()
    outcome = conductor.run()
    if outcome is not None:
        finalize.close(plan, store, attempt, outcome)
    elif attempt.outcome is not None:
        finalize.write_receipt(plan, store, attempt)
    else:
        heartbeat.put()
        return _TERMINATED
    attempt.put_conductor_heartbeat({}, left=True)
    return _exit_code(attempt)


def _keep_log(cluster: Cluster, attempt: Attempt, stage: str, number: int, pod: str) -> None:
    """Store the log that the API has of a pod that could not store it itself (SIGKILL, out of memory)."""
    try:
        if attempt.log(stage, number) is not None:
            return
        path = attempt.log_path(stage, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cluster.pod_log(pod, "stage"))
        attempt.store.publish(attempt.path(f"logs/{path.name}"))
    except Failure as failure:
        # The run does not need the log.
        print(f"warning: the log of {stage} was not stored: {failure.what}", file=sys.stderr, flush=True)


class _Heartbeat:
    """Writes conductor.json at intervals, and at once when its notes or pods change."""

    def __init__(self, attempt: Attempt, backend: ClusterBackend) -> None:
        self._attempt = attempt
        self._backend = backend
        self._notes: dict[str, Note] = {}
        self._pods: set[str] = set()
        self._at = 0.0

    def put_if_due(self) -> None:
        notes, measured = dict(self._backend.notes), self._backend.measured()
        pods = {times.pod for one in measured.values() for times in one.pods}
        changed = (notes, pods) != (self._notes, self._pods)
        if changed or time.monotonic() - self._at > CONDUCTOR_HEARTBEAT_INTERVAL_S:
            self._put(notes, pods, measured)

    def put(self) -> None:
        self._at = 0.0
        self.put_if_due()

    def _put(self, notes: dict[str, Note], pods: set[str], measured: dict[str, MeasuredTry]) -> None:
        if notes != self._notes:
            for stage, note in notes.items():
                print(f"{stage}: {note}", flush=True)
        self._notes, self._pods, self._at = notes, pods, time.monotonic()
        self._attempt.put_conductor_heartbeat(notes, measured)


def open_attempt(plan: Plan, store: Store, number: int, request: Request) -> Attempt:
    """The attempt of this conductor's ConfigMap; it is opened here unless `submit` has done so (under GitOps)."""
    attempt = Attempt(store, plan.run_id, number)
    attempt.record(plan, request.model_copy(update={"opened_at": time.time()}))
    return attempt


def _exit_code(attempt: Attempt) -> int:
    """The closed attempt's exit code; a code that would mean an evicted pod is replaced by that of a blocked run."""
    code = DISPOSITIONS[attempt.outcome.reason if attempt.outcome else Reason.INTERNAL].exit_code
    return DISPOSITIONS[Reason.BLOCKED].exit_code if code in (137, 143) else code


def _close_failed(settings: Settings, failure: Failure) -> int:
    """Close the attempt because its conductor failed; if the store is unreachable too, let the Job restart this pod."""
    try:
        plan = parse((settings.run / "plan.json").read_bytes(), "plan.json")
        attempt = Attempt(open_store(settings.store, patient=True), plan.run_id, settings.attempt)
        stopped = _stop_stages(settings, attempt)
        if not stopped:
            failure = Failure(
                failure.reason,
                failure.what,
                where=failure.where,
                problems=failure.problems,
                next_step=f"{failure.next_step}; launcher cancel {plan.run_id} stops its stages",
            )
        finalize.close_failed(attempt, failure)
        if stopped:
            attempt.put_conductor_heartbeat({}, attempt.conductor.measured, left=True)
    except Failure as other:
        print(other.text(), file=sys.stderr, flush=True)
        if other.reason in _OUTAGES:
            return _end(_TRY_AGAIN, failure)
    return _end(failure.exit_code, failure)


def _stop_stages(settings: Settings, attempt: Attempt) -> bool:
    """Delete the Jobs of the attempt's stages; False if that was not possible."""
    stages = {
        RUN_LABEL: attempt.run_id,
        ATTEMPT_LABEL: str(attempt.number),
        "app.kubernetes.io/component": "stage",
    }
    try:
        cluster = Cluster.connect(namespace=settings.namespace)
        for job in cluster.list("Job", labels=stages):
            if not job_has_ended(job):
                cluster.delete("Job", name_of(job))
    except Failure as error:
        print(f"warning: stages may still run: {error.what}", file=sys.stderr, flush=True)
        return False
    return True


def _end(code: int, failure: Failure) -> int:
    """Write the failure as the pod's termination message, for `kubectl describe pod` and `why`; returns `code`."""
    if _TERMINATION_LOG.exists():
        _TERMINATION_LOG.write_text(failure.termination_message(), encoding="ascii")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m launcher.targets.cluster.conductor_main",
        description="Conduct one attempt at a run in a cluster.",
    )
    parser.add_argument("--run", type=Path, required=True, help="directory of the run's ConfigMap")
    parser.add_argument("--store", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--job", required=True, help="name of the Job that this pod belongs to")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--start-timeout-s", type=float, default=900.0)
    return conduct(Settings(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
