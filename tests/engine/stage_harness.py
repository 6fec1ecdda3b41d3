"""Runs stages of small plans, in this process or in subprocesses, with the two-layer random model."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from jobs import stage
from jobs.methods.deepspeed_setup import init_process_group
from jobs.tasks.rows import Row, write_rows
from launcher.spec.contenders import Generation, Lora, Training
from launcher.spec.experiment import Data
from launcher.spec.plan import Plan, Resources, Stage, run_id, stage_key
from launcher.spec.stages import (
    VERSIONS,
    FetchSettings,
    PredictSettings,
    PrepareSettings,
    RandomModel,
    Settings,
    StageKind,
    TrainSettings,
)
from launcher.store import DirectoryStore

_NAME = "harness"

TRAINING: dict[str, Any] = {
    "steps": 6,
    "batch_rows": 4,
    "micro_batch_tokens": 512,
    "max_length_tokens": 512,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "dtype": "float32",
    "evaluate_every_steps": 3,
    "checkpoint_every_steps": 2,
}


def rows(count: int, seed: int = 0) -> list[Row]:
    """Short questions of various lengths with short answers."""
    generator = random.Random(seed)
    made = []
    for number in range(count):
        word = "".join(generator.choice("abcdef") for _ in range(generator.randint(5, 20)))
        messages = ({"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word[:3]})
        made.append(Row(f"row-{seed}-{number}", messages))
    return made


@cache
def init_process_group_once() -> None:
    """Create the process group of all trainings in this process; its rendezvous file outlives each of them."""
    directory = tempfile.mkdtemp(prefix="tuneyard-rendezvous-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    init_process_group(0, 0, 1, f"file://{directory}/rendezvous", "cpu")


class StageHarness:
    """A store with data and a random model, and a plan of the stages added."""

    def __init__(
        self, root: Path, *, train_rows: int = 12, validation_rows: int = 3, test_rows: int = 5
    ) -> None:
        self.store = DirectoryStore(root / "store")
        self._stages: dict[str, Stage] = {}
        data = self.add("prepare", "prepare", PrepareSettings(task="chat", data=Data(source="chat")), {})
        directory = root / "data"
        for part, count, seed in (
            ("train", train_rows, 1),
            ("validation", validation_rows, 2),
            ("test", test_rows, 3),
        ):
            write_rows(directory / f"{part}.jsonl", rows(count, seed))
        self.store.commit(f"stages/{data.key}", directory, {})
        self.add("fetch", "fetch", FetchSettings(source=RandomModel()), {})
        assert self.run("fetch") == 0

    def add(
        self,
        name: str,
        kind: StageKind,
        settings: Settings,
        needs: dict[str, str],
        inputs: dict[str, str] | None = None,
    ) -> Stage:
        plain = settings.model_dump(mode="json")
        upstream = {role: self._stages[needed].key for role, needed in needs.items()}
        key = stage_key(kind, VERSIONS[kind], plain, inputs or {}, upstream)
        self._stages[name] = Stage(
            name=name,
            kind=kind,
            version=VERSIONS[kind],
            key=key,
            needs=needs,
            inputs=inputs or {},
            settings=plain,
            resources=Resources(),
        )
        return self._stages[name]

    def train(
        self,
        name: str = "train",
        *,
        processes: int = 1,
        model: str = "fetch",
        lora: dict[str, Any] | None = None,
        **training: Any,
    ) -> str:
        """Add a train stage; return its name."""
        settings = TrainSettings(
            task="chat",
            prompt="chat",
            lora=Lora(**{"r": 4, "alpha": 8, "dropout": 0.0, **(lora or {})}),
            training=Training(**{**TRAINING, **training}),
            seed=1,
            processes=processes,
            threads=processes,
            device="cpu",
        )
        self.add(name, "train", settings, {"data": "prepare", "model": model})
        return name

    def predict(self, name: str = "predict", *, adapter: str | None = None, **generation: Any) -> str:
        """Add a predict stage; return its name."""
        settings = PredictSettings(
            task="chat",
            prompt="chat",
            generation=Generation(**{"batch_rows": 2, "max_new_tokens": 6, "dtype": "float32", **generation}),
            threads=1,
            device="cpu",
        )
        needs = {"data": "prepare", "model": "fetch", **({"adapter": adapter} if adapter else {})}
        self.add(name, "predict", settings, needs)
        return name

    def plan(self) -> Plan:
        stages = tuple(self._stages.values())
        return Plan(
            run_id=run_id(_NAME, stages), experiment={"name": _NAME, "seeds": [1]}, lock={}, stages=stages
        )

    def run(self, name: str) -> int:
        """Run one stage in this process; return its exit code."""
        wanted = self._stages[name]
        if wanted.kind == "train" and wanted.settings["processes"] == 1:
            init_process_group_once()
        return stage.run_stage(self.plan(), name, self.store, attempt=1)

    def start(self, name: str, **environment: str) -> subprocess.Popen[str]:
        """Start one stage in a subprocess, as the conductor does."""
        path = self.store.root / f"plan-{name}.json"
        path.write_bytes(self.plan().to_bytes())
        command = [sys.executable, "-m", "jobs", "run", "--plan", str(path), "--stage", name]
        command += ["--store", self.store.address]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )

    def key(self, name: str) -> str:
        return self._stages[name].key

    def output(self, name: str) -> Path:
        """The directory of a finished stage's files."""
        return self.store.open(f"stages/{self._stages[name].key}").directory()

    def work(self, name: str) -> list[str]:
        """Names in the stage's work area."""
        return self.store.list(f"runs/{self.plan().run_id}/work/{name}/{self._stages[name].key[:16]}")
