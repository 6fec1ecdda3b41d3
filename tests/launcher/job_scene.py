"""A run with its conductor on a store and an in-memory cluster, for tests of stage Jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_cluster import FakeCluster
from tiny import make_plan

from launcher.outcome import Failure
from launcher.runs.conductor import Conductor
from launcher.store import DirectoryStore
from launcher.store.records import Outcome, Request
from launcher.store.runs import Attempt
from launcher.targets.cluster.backend import ClusterBackend

START_TIMEOUT_S = 300.0
Act = Callable[["Scene"], None]


class Scene:
    """One run on one store and one cluster; `acts` happen at ticks of a second each."""

    def __init__(self, root: Path) -> None:
        self.plan = make_plan()
        self.store = DirectoryStore(root)
        self.cluster = FakeCluster()
        self.attempt = Attempt(self.store, self.plan.run_id, 1)
        self.attempt.record(self.plan, Request(target="cluster"))
        self.kept_logs: list[tuple[str, int]] = []
        self.manifest = "aaaaa"
        self.earlier: dict[str, Any] = {}
        self.tick = 0
        self.on_tick: Act = lambda scene: scene.finish_all()

    def jobs(self) -> dict[str, dict[str, Any]]:
        made = {}
        for stage in self.plan.stages:
            labels = {
                "tuneyard.dev/run": self.plan.run_id,
                "tuneyard.dev/stage": stage.name,
                "tuneyard.dev/manifest": self.manifest,
                "tuneyard.dev/try": "1",
            }
            made[stage.name] = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": f"{stage.name}-{self.manifest}-t1", "labels": labels},
                "spec": {"template": {"metadata": {"labels": dict(labels)}, "spec": {}}},
            }
        return made

    def conduct(self) -> dict[str, Any] | None:
        self.backend = ClusterBackend(
            self.plan,
            self.cluster,  # type: ignore[arg-type]
            self.jobs(),
            {"kind": "Job", "name": "conductor", "uid": "u"},
            start_timeout_s=START_TIMEOUT_S,
            keep_log=self._keep_log,
            earlier=self.earlier,
            clock=lambda: self.cluster.now,
        )
        self.conductor = Conductor(
            self.plan,
            self.store,
            self.attempt,
            self.backend,
            sleep=self._sleep,
            clock=lambda: self.cluster.now,
        )
        return self.conductor.run()

    def _keep_log(self, stage: str, number: int, pod: str) -> None:
        assert pod in self.cluster.things["Pod"]
        self.kept_logs.append((stage, number))

    def _sleep(self, _seconds: float) -> None:
        self.tick += 1
        assert self.tick < 2000, "the conductor does not end"
        self.cluster.now += 1
        self.on_tick(self)

    # -- events --------------------------------------------------------------------------
    def live(self) -> list[str]:
        """Jobs that have not ended."""
        return [name for name, job in self.cluster.things["Job"].items() if not job["status"]]

    def finish(self, job: str) -> None:
        name = self.stage_of(job)
        directory = self.store.root / f"to-commit-{name}"
        directory.mkdir()
        (directory / "out").write_text(name)
        self.store.commit(f"stages/{self.plan.stage(name).key}", directory, {"seconds": 3.0})
        self.cluster.end(job, 0)

    def finish_all(self) -> None:
        for job in self.live():
            self.finish(job)

    def stage_of(self, job: str) -> str:
        return str(self.cluster.things["Job"][job]["metadata"]["labels"]["tuneyard.dev/stage"])

    def failing(self, stage: str, fail: Callable[[str], None], times: int = 1) -> None:
        """Let `stage` fail as `fail` says that many times; everything else succeeds."""
        left = [times]

        def act(scene: Scene) -> None:
            for job in scene.live():
                if scene.stage_of(job) != stage or not left[0]:
                    scene.finish(job)
                else:
                    left[0] -= 1
                    fail(job)

        self.on_tick = act

    def succeeds(self) -> None:
        """Conduct the run to its end, which is a good one."""
        outcome = self.conduct()
        assert outcome is not None
        assert outcome.reason.value == "succeeded", outcome

    def failure(self, outcome: Outcome | None, stage: str) -> Failure:
        assert outcome is not None
        assert outcome.stages[stage].state == "failed", outcome.stages
        failure = outcome.stages[stage].failure
        assert failure is not None
        return failure


class Lost(Exception):
    """The conductor's pod is gone."""
