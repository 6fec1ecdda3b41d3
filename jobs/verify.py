"""`python -m jobs verify`: score the stored answers anew and compare with what is committed.

Nothing is written to the store: what is computed goes to a directory of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from jobs.stage import StageContext, code_version
from launcher.outcome import Failure, Reason
from launcher.spec.plan import Plan, Stage, parse
from launcher.spec.results import Results
from launcher.store import Artifact, DirectoryStore, Store, open_store


class Anew(DirectoryStore):
    """A directory for what is computed anew; everything else is read from the store that is verified."""

    def __init__(self, root: Path, verified: Store) -> None:
        super().__init__(root)
        self._verified = verified

    def open(self, prefix: str) -> Artifact:  # type: ignore[override]
        return super().open(prefix) if self.exists(prefix) else self._verified.open(prefix)

    def input(self, sha256: str) -> Path:
        return self._verified.input(sha256)


def main(argv: list[str]) -> int:
    """Write what was found to --result; the exit code is 0 whatever it says. Raises Failure where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m jobs verify")
    parser.add_argument("--plan", required=True, type=Path)
    parser.add_argument("--store", required=True)
    parser.add_argument("--scratch", required=True, type=Path)
    parser.add_argument("--result", required=True, type=Path)
    options = parser.parse_args(argv)
    plan = parse(options.plan.read_bytes(), str(options.plan))
    found = compute_anew(plan, open_store(options.store, writable=False), options.scratch)
    options.result.write_text(json.dumps(found), encoding="utf-8")
    return 0


def compute_anew(plan: Plan, store: Store, scratch: Path) -> dict[str, Any]:
    """{"stages": {name: [files that differ]}, "results_digest": …} of the score and report stages.

    Raises Failure(VERSION_MISMATCH) where this code scores differently by its own account.
    """
    anew = Anew(scratch / "store", store)
    stages = [stage for stage in plan.stages if stage.kind in ("score", "report")]
    old = [f"{s.name} (version {s.version})" for s in stages if code_version(s.kind) != s.version]
    if old:
        raise Failure(
            Reason.VERSION_MISMATCH,
            "the results were computed by another version of the code",
            where=plan.run_id,
            problems=tuple(old),
            next_step="verify with the version that made them, or submit again to score anew",
        )
    differing = {stage.name: _differences(plan, stage, anew, store, scratch) for stage in stages}
    report = anew.open(f"stages/{plan.stage('report').key}").path("results.json")
    return {
        "stages": differing,
        "results_digest": Results.model_validate_json(report.read_bytes()).digest(),
    }


def _differences(plan: Plan, stage: Stage, anew: Anew, store: Store, scratch: Path) -> list[str]:
    """Names of the stage's files that come out otherwise than they are committed."""
    context = StageContext(plan, stage, anew, 1, scratch / stage.name)
    importlib.import_module(f"jobs.{stage.kind}.stage").run(context)
    prefix = f"stages/{stage.key}"
    found = anew.commit(prefix, context.out, {}).files
    committed = store.open(prefix).manifest.files
    return sorted(name for name in found.keys() | committed.keys() if found.get(name) != committed.get(name))
