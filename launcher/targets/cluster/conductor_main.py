"""The conductor's pod: `python -m launcher.targets.cluster.conductor_main`, started by the run's conductor Job alone.

It carries one attempt to its end with Jobs as its backend. It may die at any moment: the Job starts it
again and it finds everything in the API and the store. Exit codes: the attempt's own once it is closed;
143 after SIGTERM; 75 where the store or the API stayed away, for the Job to try again.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from launcher.manifests.labels import ATTEMPT_LABEL, RUN_LABEL
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.runs import finalize
from launcher.runs.conductor import Conductor
from launcher.spec.plan import Plan, parse
from launcher.store import Store, open_store
from launcher.store.records import MeasuredTry, Note, Request
from launcher.store.runs import CONDUCTOR_HEARTBEAT_INTERVAL_S, Attempt
from launcher.targets.cluster import pod_status as of
from launcher.targets.cluster.api_errors import is_unauthorized
from launcher.targets.cluster.backend import ClusterBackend, live_conductors
from launcher.targets.cluster.client import Cluster, owner_reference

#: sysexits.h: temporary failure.
_TRY_AGAIN = 75
_TERMINATED = DISPOSITIONS[Reason.TERMINATED].exit_code
#: What may pass without anything being wrong with the run, and for how many seconds it is waited for here.
_AWAY = {Reason.NETWORK: 600.0, Reason.STORE_FAILED: 60.0}
_AWAY_PAUSE_S = 3.0
#: How long a pod whose token is not accepted hopes that it is. Once a pod has been deleted for a minute, as on a node
#: that is lost and goes on without knowing, its token is void: the run is no longer its to end.
_DISOWNED_S = 30.0
_TERMINATION_LOG = Path("/dev/termination-log")


class _Pod:
    """This process: whether it was asked to stop, and whom to tell."""

    def __init__(self) -> None:
        self.stopping = False
        self.conductor: Conductor | None = None
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        if self.conductor is not None:
            self.conductor.request_stop()


def conduct(arguments: argparse.Namespace) -> int:
    """Carry the attempt to its end, through absences of the store and the API."""
    process, away_since = _Pod(), 0.0
    while True:
        try:
            return _conduct_once(arguments, process)
        except Failure as failure:
            print(failure.text(), file=sys.stderr, flush=True)
            patience_s = _patience_s(failure)
            if patience_s is None:
                return _broken(arguments, failure)
            now = time.monotonic()
            away_since = away_since if away_since and now - away_since < 2 * max(_AWAY.values()) else now
            if process.stopping:
                return _TERMINATED
            if now - away_since > patience_s:
                return _end(_TRY_AGAIN, failure)
            time.sleep(_AWAY_PAUSE_S)
        except Exception as error:
            traceback.print_exc()
            internal = Failure(
                Reason.INTERNAL,
                f"the conductor failed: {type(error).__name__}: {error}",
                where=arguments.job,
                next_step=f"read its log: kubectl logs job/{arguments.job}",
            )
            return _broken(arguments, internal)


def _patience_s(failure: Failure) -> float | None:
    """For how long it is waited for, before the Job shall try again; None for what closes the attempt."""
    return _DISOWNED_S if is_unauthorized(failure) else _AWAY.get(failure.reason)


def _conduct_once(arguments: argparse.Namespace, process: _Pod) -> int:
    plan = parse((arguments.run / "plan.json").read_bytes(), "plan.json")
    store = open_store(arguments.store)
    attempt = open_attempt(
        plan,
        store,
        arguments.attempt,
        Request.read(json.loads((arguments.run / "request.json").read_bytes()), "request.json"),
    )
    if attempt.outcome is not None and attempt.conductor_exited:
        return _exit_code(attempt)
    # One that was closed while no conductor lived has stages to be stopped all the same, and to be accounted for.
    cluster = Cluster.connect(namespace=arguments.namespace)
    own = cluster.get("Job", arguments.job)
    if own is None or process.stopping:
        return _TERMINATED  # deleted: everything that hangs on it goes as well
    take_over(cluster, attempt, own)
    jobs = {
        stage.name: json.loads((arguments.run / f"job-{stage.name}.json").read_bytes())
        for stage in plan.stages
    }
    backend = ClusterBackend(
        plan,
        cluster,
        jobs,
        owner_reference(own),
        start_timeout_s=arguments.start_timeout_s,
        keep_log=partial(_keep_log, cluster, attempt),
        earlier=attempt.conductor.measured,
    )
    try:
        return _walk(plan, store, attempt, backend, process)
    finally:
        backend.close()
        print(f"requests to the API: {cluster.requests}", flush=True)


def _walk(plan: Plan, store: Store, attempt: Attempt, backend: ClusterBackend, process: _Pod) -> int:
    beat = _Beat(attempt, backend)

    def sleep(seconds: float) -> None:
        backend.wait(seconds)
        beat.if_due()

    beat.now()
    process.conductor = conductor = Conductor(plan, store, attempt, backend, sleep=sleep)
    if process.stopping:
        conductor.request_stop()
    outcome = conductor.run()
    if outcome is not None:
        finalize.close(plan, store, attempt, outcome)
    elif attempt.outcome is not None:
        finalize.write_receipt(plan, store, attempt)
    else:
        beat.now()
        return _TERMINATED
    attempt.put_conductor_heartbeat({}, left=True)
    return _exit_code(attempt)


def _keep_log(cluster: Cluster, attempt: Attempt, stage: str, number: int, pod: str) -> None:
    """Store what the API still has of a log that its pod could not store itself (SIGKILL, no memory)."""
    try:
        if attempt.log(stage, number) is not None:
            return
        path = attempt.log_path(stage, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cluster.pod_log(pod, "stage"))
        attempt.store.publish(attempt.path(f"logs/{path.name}"))
    except Failure as failure:
        # The log is a help to people; the run goes on without it.
        print(f"warning: the log of {stage} was not stored: {failure.what}", file=sys.stderr, flush=True)


class _Beat:
    """Says now and then that the conductor lives, and at once when what it has to say changes."""

    def __init__(self, attempt: Attempt, backend: ClusterBackend) -> None:
        self._attempt = attempt
        self._backend = backend
        self._notes: dict[str, Note] = {}
        self._pods: set[str] = set()
        self._at = 0.0

    def if_due(self) -> None:
        notes, measured = dict(self._backend.notes), self._backend.measured()
        pods = {times.pod for one in measured.values() for times in one.pods}
        if (notes, pods) != (
            self._notes,
            self._pods,
        ) or time.monotonic() - self._at > CONDUCTOR_HEARTBEAT_INTERVAL_S:
            self._say(notes, pods, measured)

    def now(self) -> None:
        self._at = 0.0
        self.if_due()

    def _say(self, notes: dict[str, Note], pods: set[str], measured: dict[str, MeasuredTry]) -> None:
        if notes != self._notes:
            for stage, note in notes.items():
                print(f"{stage}: {note}", flush=True)
        self._notes, self._pods, self._at = notes, pods, time.monotonic()
        self._attempt.put_conductor_heartbeat(notes, measured)


def open_attempt(plan: Plan, store: Store, number: int, request: Request) -> Attempt:
    """The attempt that this conductor's ConfigMap speaks of; under GitOps nobody has opened it before."""
    attempt = Attempt(store, plan.run_id, number)
    attempt.record(plan, request.model_copy(update={"opened_at": time.time()}))
    return attempt


def take_over(cluster: Cluster, attempt: Attempt, own: dict[str, Any]) -> None:
    """End older conductors of this run (another placement, an earlier attempt), and with them their stages.

    Not one that has left and whose Job only does not say so yet: what its pods show is kept.
    """
    for job in live_conductors(cluster, attempt.run_id):
        if _age_order(job) < _age_order(own) and not _has_left(job, attempt):
            print(f"taking over from {job['metadata']['name']}", flush=True)
            cluster.delete("Job", job["metadata"]["name"])


def _has_left(job: dict[str, Any], attempt: Attempt) -> bool:
    """Whether a conductor is an earlier attempt's, and has ended in good order."""
    number = str(job["metadata"].get("labels", {}).get(ATTEMPT_LABEL, ""))
    if not number.isdigit() or int(number) == attempt.number:
        return False
    return Attempt(attempt.store, attempt.run_id, int(number)).conductor_exited


def _age_order(job: dict[str, Any]) -> tuple[float, str]:
    """Of two Jobs made in the same second, their names decide: never shall each end the other."""
    created_at = of.seconds_of(job["metadata"].get("creationTimestamp")) or 0.0
    return created_at, str(job["metadata"]["name"])


def _exit_code(attempt: Attempt) -> int:
    """The closed attempt's own; where that reads as if this pod had been taken away, that of a run with a failure."""
    code = DISPOSITIONS[attempt.outcome.reason if attempt.outcome else Reason.INTERNAL].exit_code
    return DISPOSITIONS[Reason.BLOCKED].exit_code if code in (137, 143) else code


def _broken(arguments: argparse.Namespace, failure: Failure) -> int:
    """Close the attempt with what broke its conductor; where even that cannot be said, let the Job try again."""
    try:
        plan = parse((arguments.run / "plan.json").read_bytes(), "plan.json")
        attempt = Attempt(open_store(arguments.store), plan.run_id, arguments.attempt)
        left = _stop_stages(arguments, attempt)
        if not left:
            failure = Failure(
                failure.reason,
                failure.what,
                where=failure.where,
                problems=failure.problems,
                next_step=f"{failure.next_step}; launcher cancel {plan.run_id} ends what runs on",
            )
        finalize.close_failed(attempt, failure)
        if left:
            attempt.put_conductor_heartbeat({}, attempt.conductor.measured, left=True)
    except Failure as other:
        print(other.text(), file=sys.stderr, flush=True)
        if other.reason in _AWAY:
            return _end(_TRY_AGAIN, failure)
    return _end(failure.exit_code, failure)


def _stop_stages(arguments: argparse.Namespace, attempt: Attempt) -> bool:
    """Delete the Jobs of the attempt's stages, which nobody will look after; False where that was not possible."""
    stages = {
        RUN_LABEL: attempt.run_id,
        ATTEMPT_LABEL: str(attempt.number),
        "app.kubernetes.io/component": "stage",
    }
    try:
        cluster = Cluster.connect(namespace=arguments.namespace)
        for job in cluster.list("Job", labels=stages):
            if not of.job_has_ended(job):
                cluster.delete("Job", job["metadata"]["name"])
    except Failure as error:
        print(f"warning: stages may run on: {error.what}", file=sys.stderr, flush=True)
        return False
    return True


def _end(code: int, failure: Failure) -> int:
    """Leave the reason where `kubectl describe pod` and whoever waits for the run find it."""
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
    parser.add_argument("--job", required=True, help="name of the Job that this is a pod of")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--start-timeout-s", type=float, default=900.0)
    return conduct(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
