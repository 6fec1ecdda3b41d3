"""The stage contract: guard, verified inputs, work with heartbeats, SIGTERM, commit, exit code.

Every stage runs as `python -m jobs run --plan plan.json --stage NAME`, locally and in a pod.
A stage kind is a package `jobs/<kind>/` with, in its `stage.py`, `run(context: StageContext) -> None`,
which writes its outputs to `context.out`. Its version is in `launcher.spec.stages.VERSIONS`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.runtime.heartbeat import HeartbeatWriter
from jobs.runtime.nodes import node_index
from jobs.runtime.process import library_versions, peak_memory_bytes
from jobs.runtime.stage_lease import wait_for_stage
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec.plan import Plan, Stage
from launcher.spec.stages import VERSIONS
from launcher.store import Artifact, Store
from launcher.store.fenced import FencedStore
from launcher.store.lease import LEASE_S, Lease


class Stopped(Exception):
    """The stage stopped after SIGTERM with its progress saved; the process exits with 143."""


@dataclass(frozen=True)
class StageMeta:
    """`meta` in the manifest of a stage's outputs: provenance and cost. Never part of a digest."""

    stage: str
    kind: str
    run: str
    attempt: int
    started_at: float  # Unix time
    seconds: float
    peak_memory_bytes: int
    device: str
    versions: dict[str, str]
    #: What the stage kind measured (`StageContext.meta`); its keys are merged into the record.
    measured: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self).items() if name != "measured"}
        return {**fields, **self.measured}


class StageContext:
    """What a stage kind works with: its settings, verified inputs, output directory and work area."""

    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        store: Store,
        attempt: int,
        scratch: Path,
        lease: Lease | None = None,
    ) -> None:
        """With a `lease` nothing is written to the store, and nothing spent, after another process has taken it."""
        self.plan = plan
        self.stage = stage
        self.store = store if lease is None else FencedStore(store, lease)
        self._lease = lease
        self.attempt = attempt
        self.scratch = scratch
        self.out = scratch / "out"
        self.out.mkdir(parents=True)
        #: Index of this node; only node 0 reports and commits.
        self.node = node_index()
        #: Closed after the outputs are committed, or with the error that prevented it.
        self.until_commit = contextlib.ExitStack()
        #: Whether results computed earlier on this machine may be used. False when a run is verified.
        self.may_use_cache = True
        #: Measured facts for the receipt (tokens, seconds): stored in the manifest, never digested.
        self.meta: dict[str, Any] = {}
        self._stop = False
        path = f"runs/{plan.run_id}/attempts/{attempt}/heartbeats/{stage.name}.json"
        self._heartbeats = HeartbeatWriter(self.store, path, stage.name)

    # -- inputs ---------------------------------------------------------------------------
    def input(self, role: str) -> Artifact:
        """The committed output of the upstream stage in `role`, e.g. "data", "model", "adapter"."""
        return self.store.open(f"stages/{self.plan.stage(self.stage.needs[role]).key}")

    def has_input(self, role: str) -> bool:
        return role in self.stage.needs

    def outside(self, name: str) -> Path:
        """A verified local copy of an outside input, by its name in `stage.inputs`."""
        return self.store.input(self.stage.inputs[name])

    # -- work -----------------------------------------------------------------------------
    def heartbeat(self, step: int, total: int, unit: str, **measures: float) -> None:
        """Report progress to the store and to stdout. Rate-limited, so it may be called often.

        Raises LeaseLost if another process has taken over this stage.
        """
        if self._lease is not None:
            self._lease.raise_if_lost()
        self._heartbeats.write(step, total, unit, measures)

    @property
    def stop_requested(self) -> bool:
        """True after SIGTERM: save progress and call `check_stop`."""
        return self._stop

    def check_stop(self) -> None:
        """Raise Stopped after SIGTERM. Call it when progress is saved."""
        if self._stop:
            raise Stopped

    def check_lease(self) -> None:
        """Raise LeaseLost if another process has taken over this stage. Call it before money is spent."""
        if self._lease is not None:
            self._lease.check()

    def request_stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stop = True

    def work_path(self, name: str) -> str:
        """Store path of `name` in this stage's work area: progress that survives the process.

        The area is named by the stage key, so a changed plan never resumes from stale progress.
        """
        base = f"runs/{self.plan.run_id}/work/{self.stage.name}/{self.stage.key[:16]}"
        return f"{base}/{name}" if name else base


def run_stage(plan: Plan, name: str, store: Store, attempt: int, *, lease_s: float = LEASE_S) -> int:
    """Run one stage under the contract and return its exit code."""
    stage = plan.stage(name)
    if store.exists(f"stages/{stage.key}"):
        print(f"{name}: committed already, nothing to do", flush=True)
        return 0
    try:
        _run_with_lease(plan, stage, store, attempt, lease_s)
    except Stopped:
        return _report(Failure(Reason.TERMINATED, "asked to stop; progress is saved", where=name))
    except Failure as failure:
        if not failure.where:
            failure.where = name
        return _report(failure)
    except MemoryError:
        return _report(Failure(Reason.OUT_OF_MEMORY, "the process ran out of memory", where=name))
    except OSError as error:
        traceback.print_exc()
        reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.INTERNAL
        return _report(Failure(reason, str(error), where=name))
    except Exception as error:
        # The traceback goes to the stage's log only; the failure itself is one line.
        traceback.print_exc()
        return _report(Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}", where=name))
    return 0


def _run_with_lease(plan: Plan, stage: Stage, store: Store, attempt: int, lease_s: float) -> None:
    """Run the stage as the only process that works on it. Raises Stopped after SIGTERM, also while it waits."""
    found = VERSIONS[stage.kind]
    if found != stage.version:
        raise Failure(
            Reason.VERSION_MISMATCH,
            f"the plan wants {stage.kind} version {stage.version}, this is version {found}",
        )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    area = f"runs/{plan.run_id}/work/{stage.name}"
    if node := node_index():
        # Node 0 holds the lease; the others write nothing but their own scratch directory.
        with store.lock(f"{area}/lock-node-{node}") as acquired:
            if not acquired:
                raise Failure(Reason.KILLED, "another process is this node", next_step="wait for it")
            _run_and_commit(plan, stage, store, attempt, f"{area}/scratch-node-{node}", None, stop)
        return
    lease = wait_for_stage(plan, stage, store, attempt, lease_s=lease_s, stop=stop)
    if lease is None:
        if stop.is_set():
            raise Stopped
        print(f"{stage.name}: another run has committed it", flush=True)
        return
    with lease:
        try:
            _run_and_commit(plan, stage, store, attempt, f"{area}/scratch", lease, stop)
        except Exception:
            # If another process has taken over, that is the reason for whatever failed here.
            lease.raise_if_lost()
            raise


def _run_and_commit(
    plan: Plan,
    stage: Stage,
    store: Store,
    attempt: int,
    scratch_path: str,
    lease: Lease | None,
    stop: threading.Event,
) -> None:
    # A directory store's scratch is on its own file system, so a commit is a rename.
    base = store.local_path(scratch_path)
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(dir=base))
    try:
        context = StageContext(plan, stage, store, attempt, scratch, lease)
        signal.signal(signal.SIGTERM, context.request_stop)
        if stop.is_set():
            context.request_stop()
        started_at = time.time()
        run: Callable[[StageContext], None] = importlib.import_module(f"jobs.{stage.kind}.stage").run
        with context.until_commit:
            run(context)
            if context.node == 0:
                context.store.commit(f"stages/{stage.key}", context.out, _meta(context, started_at).to_json())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _meta(context: StageContext, started_at: float) -> StageMeta:
    stage = context.stage
    return StageMeta(
        stage=stage.name,
        kind=stage.kind,
        run=context.plan.run_id,
        attempt=context.attempt,
        started_at=started_at,
        seconds=round(time.time() - started_at, 3),
        peak_memory_bytes=peak_memory_bytes(children=True),
        device=stage.resources.device,
        versions=library_versions(),
        measured=context.meta,
    )


def _report(failure: Failure) -> int:
    """Write the failure to the termination message and to stderr; return its exit code."""
    if path := os.environ.get("TUNEYARD_TERMINATION_LOG"):
        Path(path).write_text(failure.termination_message())
    print(failure.text(), file=sys.stderr, flush=True)
    return DISPOSITIONS[failure.reason].exit_code
