"""The workers on this machine: started, listened to, and never outliving the stage.

The stage's process computes nothing itself. Each worker is a process of its own that the kernel
kills when the stage's process dies, however it dies; where one worker fails, the others are
killed, since they would wait for it forever. Workers of one machine find each other through a file, not a
port; those of several nodes as meeting.py says.

The first worker says what happens as JSON lines on a pipe; only the stage's process touches the store.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.methods.rendezvous import Peers, cause
from jobs.methods.sft import Job, Reporter, StoppedAtStep
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason, from_exit_code
from launcher.spec.stages import TrainSettings
from launcher.system.processes import killed_with_parent

_POLL_S = 0.2
#: Exit code of a worker that was asked to stop and did, as of any stage.
STOPPED = 143


def train_with_workers(
    job: Job,
    context: StageContext,
    reporter: Reporter,
    *,
    count: int,
    first_rank: int = 0,
    peers: Peers | None = None,
) -> None:
    """Run `count` of the job's workers here, from `first_rank` on, while the `peers` are there too.

    Raises what a worker or a peer reports, or StoppedAtStep.
    """
    description = context.scratch / "job.json"
    description.write_text(to_json(job), encoding="utf-8")
    read_end, write_end = os.pipe()
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for local_rank in range(count):
            workers.append(_start(description, first_rank + local_rank, local_rank, write_end))
        os.close(write_end)
        with os.fdopen(read_end, "rb") as stream:
            try:
                _Supervisor(workers, reporter, peers).follow(stream)
            except Failure as failure:
                raise (cause(failure, peers) if peers else failure) from None
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


def _start(description: Path, rank: int, local_rank: int, write_end: int) -> subprocess.Popen[bytes]:
    numbers = (str(rank), str(local_rank), str(write_end))
    command = [sys.executable, "-m", "jobs.methods.worker", str(description), *numbers]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(write_end,),
        preexec_fn=killed_with_parent(),
        # A group of its own: a signal to the stage's group must not hit workers in the middle of a step.
        process_group=0,
    )


class _Supervisor:
    """Carries the first worker's reports on and watches that all workers, here and elsewhere, live or end well."""

    def __init__(
        self, workers: list[subprocess.Popen[bytes]], reporter: Reporter, peers: Peers | None
    ) -> None:
        self._workers = workers
        self._reporter = reporter
        self._peers = peers
        self._failure: Failure | None = None
        self._told_to_stop = False

    def follow(self, stream: Any) -> None:
        """Until all workers ended."""
        os.set_blocking(stream.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            pending = b""
            while True:
                selector.select(_POLL_S)
                pending = self._reports(pending + (stream.read() or b""))
                self._pass_on_stop()
                if self._peers:
                    self._peers.check()
                codes = [worker.poll() for worker in self._workers]
                if all(code is not None for code in codes) or any(
                    code not in (None, 0, STOPPED) for code in codes
                ):
                    break
            self._reports(pending + (stream.read() or b""))
        self._end(codes)

    def _reports(self, data: bytes) -> bytes:
        """Act on every whole line of `data`; returns the rest."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            report = json.loads(line)
            kind = report.pop("kind")
            if kind == "heartbeat":
                self._reporter.heartbeat(report["step"], report["total"], report["measures"])
            elif kind == "checkpoint":
                self._reporter.checkpoint(Path(report["directory"]), report["step"])
            elif kind == "facts":
                self._reporter.facts(report["measured"])
            elif kind == "failure":
                self._failure = self._failure or Failure.from_json(report["failure"])
        return rest

    def _pass_on_stop(self) -> None:
        if self._reporter.stop_requested and not self._told_to_stop:
            self._told_to_stop = True
            for worker in self._workers:
                if worker.poll() is None:
                    worker.send_signal(signal.SIGTERM)

    def _end(self, codes: list[int | None]) -> None:
        if self._failure:
            raise self._failure
        bad = [(rank, code) for rank, code in enumerate(codes) if code not in (None, 0, STOPPED)]
        if bad:
            rank, code = bad[0]
            assert code is not None
            reason = from_exit_code(code)
            raise Failure(
                reason if reason is Reason.KILLED else Reason.INTERNAL,
                f"worker {rank} of {len(codes)} ended with code {code}",
            )
        if STOPPED in codes:
            raise StoppedAtStep


def to_json(job: Job) -> str:
    """A job as text that `from_json` reads in another process."""
    value = {**asdict(job), "settings": job.settings.model_dump(mode="json")}
    return json.dumps(value, default=str)


def from_json(text: str, rank: int, local_rank: int = 0) -> Job:
    """The job in `text` as worker `rank` carries it out, which is number `local_rank` on its machine."""
    value = json.loads(text)
    paths = {name: Path(value[name]) for name in ("model", "data", "out", "scratch")}
    return Job(
        settings=TrainSettings.model_validate_json(json.dumps(value["settings"])),
        checkpoint=Path(value["checkpoint"]) if value["checkpoint"] else None,
        base=value["base"],
        rank=rank,
        local_rank=local_rank,
        rendezvous=value["rendezvous"],
        **paths,
    )
