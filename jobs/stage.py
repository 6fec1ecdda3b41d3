"""The stage contract: guard, verified inputs, work with a heartbeat, SIGTERM, commit, exit code.

Every stage is `python -m jobs run --plan plan.json --stage NAME`, on a laptop and in a pod.
A stage kind is a package `jobs/<kind>/` with `VERSION` and, in its `stage.py`,
`run(context: StageContext) -> None`, which leaves its outputs in `context.out`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.nodes import node_index
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec.plan import Plan, Stage
from launcher.store import Artifact, Store

#: How often a heartbeat reaches the store at most.
HEARTBEAT_INTERVAL_S = 1.0


class Stopped(Exception):
    """SIGTERM arrived: progress is saved, the process ends with 143."""


class StageContext:
    """What a stage may touch: its settings, its verified inputs, its output and its work area."""

    def __init__(self, plan: Plan, stage: Stage, store: Store, attempt: int, scratch: Path) -> None:
        self.plan = plan
        self.stage = stage
        self.store = store
        self.attempt = attempt
        self.scratch = scratch
        self.out = scratch / "out"
        self.out.mkdir(parents=True)
        #: Which of the stage's nodes this is; the first alone reports and commits.
        self.node = node_index()
        #: Left once the outputs are committed, or with the error that kept them from it.
        self.until_commit = contextlib.ExitStack()
        #: Measured facts for the receipt (tokens, seconds, peak memory): kept in the manifest, never digested.
        self.meta: dict[str, Any] = {}
        self._stop = False
        self._started = time.monotonic()
        self._last_beat = 0.0
        self._last_step = -1
        self._first_beat: tuple[int, float] | None = None

    # -- inputs ---------------------------------------------------------------------------
    def input(self, role: str) -> Artifact:
        """The committed output of the stage that fills `role`, e.g. "data", "model", "adapter"."""
        return self.store.open(f"stages/{self.plan.stage(self.stage.needs[role]).key}")

    def has_input(self, role: str) -> bool:
        return role in self.stage.needs

    def outside(self, name: str) -> Path:
        """A verified local copy of an outside file, by its name in `stage.inputs`."""
        return self.store.input(self.stage.inputs[name])

    # -- work -----------------------------------------------------------------------------
    def heartbeat(self, step: int, total: int, unit: str, **measures: float) -> None:
        """Say how far the work is: a line on stdout and an object in the store. Cheap to call often."""
        now = time.monotonic()
        interval_s = max(HEARTBEAT_INTERVAL_S, self.store.poll_interval_s)
        first_or_last = step in (0, total) and step != self._last_step
        if not first_or_last and now - self._last_beat < interval_s:
            return
        self._last_beat, self._last_step = now, step
        elapsed_s = now - self._started
        if self._first_beat is None:
            # What a resumed stage finds done already says nothing about its speed.
            self._first_beat = (step, now)
        first_step, first_at = self._first_beat
        eta_s = (now - first_at) / (step - first_step) * (total - step) if step > first_step else None
        beat = {
            "stage": self.stage.name,
            "step": step,
            "total": total,
            "unit": unit,
            "elapsed_s": round(elapsed_s, 1),
            "eta_s": None if eta_s is None else round(eta_s, 1),
            "measures": measures,
            "at": time.time(),
        }
        try:
            self.store.put_json(
                f"runs/{self.plan.run_id}/attempts/{self.attempt}/heartbeats/{self.stage.name}.json",
                beat,
                create_once=False,
            )
        except Failure as failure:
            # Work does not end because nobody can be told how far it is.
            print(f"warning: heartbeat not stored: {failure.what}", file=sys.stderr, flush=True)
        shown = " ".join(f"{name}={value:.4g}" for name, value in measures.items())
        eta = "" if eta_s is None else f" eta={eta_s:.0f}s"
        print(f"{unit} {step}/{total} {shown}{eta}".rstrip(), flush=True)

    @property
    def stop_requested(self) -> bool:
        """True once SIGTERM arrived: save and call `check_stop`."""
        return self._stop

    def check_stop(self) -> None:
        """Raise Stopped once SIGTERM arrived. Call where progress is saved."""
        if self._stop:
            raise Stopped

    def request_stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stop = True

    # -- progress that survives -----------------------------------------------------------
    def work_path(self, name: str) -> str:
        """Store path inside this stage's work area: for `store.commit`, `put_json` and `list`.

        The area belongs to the stage key, so that what a changed plan left behind is never resumed.
        """
        base = f"runs/{self.plan.run_id}/work/{self.stage.name}/{self.stage.key[:16]}"
        return f"{base}/{name}" if name else base


def pin_threads(threads: int) -> None:
    """Fix the number of threads before any numeric library is imported: it can change results."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Waiting threads sleep: where cores are shared, spinning ones made everything three to six times slower.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def code_version(kind: str) -> int:
    """The version of the code at hand for a stage kind."""
    version = importlib.import_module(f"jobs.{kind}").VERSION
    assert isinstance(version, int)
    return version


def run_stage(plan: Plan, name: str, store: Store, attempt: int) -> int:
    """Carry out one stage by the contract and return its exit code."""
    stage = plan.stage(name)
    prefix = f"stages/{stage.key}"
    if store.exists(prefix):
        print(f"{name}: committed already, nothing to do", flush=True)
        return 0
    try:
        return _guarded(plan, stage, store, attempt, prefix)
    except Stopped:
        return _end(Failure(Reason.TERMINATED, "asked to stop; progress is saved", where=name))
    except Failure as failure:
        if not failure.where:
            failure.where = name
        return _end(failure)
    except MemoryError:
        return _end(Failure(Reason.OUT_OF_MEMORY, "the process ran out of memory", where=name))
    except OSError as error:
        traceback.print_exc()
        reason = Reason.DISK_FULL if error.errno == 28 else Reason.INTERNAL
        return _end(Failure(reason, str(error), where=name))
    except Exception as error:
        # The trace belongs in the stage's log; what people see is one line and where to read on.
        traceback.print_exc()
        return _end(Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}", where=name))


def _guarded(plan: Plan, stage: Stage, store: Store, attempt: int, prefix: str) -> int:
    found = code_version(stage.kind)
    if found != stage.version:
        raise Failure(
            Reason.VERSION_MISMATCH,
            f"the plan wants {stage.kind} version {stage.version}, this is version {found}",
        )
    area = f"runs/{plan.run_id}/work/{stage.name}"
    # Nodes that share a file system have a lock and a scratch directory each.
    node = f"-node-{node_index()}" if node_index() else ""
    with store.lock(f"{area}/lock{node}") as held:
        if not held:
            raise Failure(
                Reason.KILLED, "another process is carrying out this stage", next_step="wait for it"
            )
        # Scratch of a directory store lies in its file system, so that a commit is a rename.
        base = store.local_path(f"{area}/scratch{node}")
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        scratch = Path(tempfile.mkdtemp(dir=base))
        try:
            context = StageContext(plan, stage, store, attempt, scratch)
            signal.signal(signal.SIGTERM, context.request_stop)
            started = time.time()
            run: Callable[[StageContext], None] = importlib.import_module(f"jobs.{stage.kind}.stage").run
            with context.until_commit:
                run(context)
                if context.node == 0:
                    store.commit(prefix, context.out, _meta(context, started))
        finally:
            shutil.rmtree(base, ignore_errors=True)
    return 0


def _meta(context: StageContext, started: float) -> dict[str, Any]:
    """What the manifest says of how the outputs came to be."""
    stage = context.stage
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "run": context.plan.run_id,
        "attempt": context.attempt,
        "started_at": started,
        "seconds": round(time.time() - started, 3),
        "peak_memory_bytes": _peak_memory_bytes(),
        "device": stage.resources.device,
        "versions": library_versions(),
        **context.meta,
    }


def _peak_memory_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) * unit


def library_versions() -> dict[str, str]:
    """Versions of what can change a number, as installed here."""
    versions = {"python": sys.version.split()[0]}
    for name in (
        "tuneyard",
        "torch",
        "transformers",
        "peft",
        "deepspeed",
        "sqlglot",
        "apsw",
        "openai",
    ):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _end(failure: Failure) -> int:
    """Leave the reason where a conductor reads it (the termination message) and return the exit code."""
    message = failure.termination_message()
    if path := os.environ.get("TUNEYARD_TERMINATION_LOG"):
        Path(path).write_text(message)
    print(failure.text(), file=sys.stderr, flush=True)
    return DISPOSITIONS[failure.reason].exit_code


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file written by an earlier stage."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line, UTF-8, keys in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
