"""The Python API: the same calls that the command line makes.

    from launcher import load, make_plan, submit
    run = submit(load("sql"), target="local")
    run.wait()
    print(run.verdict["summary"])

Importing this module imports nothing heavy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.spec.experiment import Experiment
    from launcher.spec.plan import Plan
    from launcher.targets.runner import Run

__all__ = ["Run", "load", "make_plan", "submit"]


def __getattr__(name: str) -> Any:
    if name != "Run":
        raise AttributeError(f"module 'launcher.api' has no attribute '{name}'")
    from launcher.targets.runner import Run

    return Run


def load(source: str, **overrides: Any) -> Experiment:
    """An experiment by built-in name or file; keywords as in `launcher.spec.loading.load`."""
    from launcher.spec import loading

    return loading.load(source, **overrides)


def make_plan(
    experiment: Experiment, *, data: Path | None = None, lock: Path | None = None, relock: bool = False
) -> Plan:
    """The plan of an experiment. `data`, `lock` and `relock` are as on the command line."""
    from launcher.resolve.study import make_study

    return make_study(experiment, data_directory=data, lock_path=lock, relock=relock).plan


def submit(
    experiment: Experiment,
    *,
    target: str = "local",
    data: Path | None = None,
    lock: Path | None = None,
    relock: bool = False,
    store: str | None = None,
    site: Path | None = None,
    allow_code: str | None = None,
) -> Run:
    """Start a run, or join it if it is under way; returns at once. `site` is the path of a site file.

    `allow_code` is the sha256 of a task folder's code (`launcher plan` shows it): without it, a task of your own
    that you have not allowed before raises Failure(USAGE).
    """
    from launcher.resolve.study import make_study
    from launcher.runs.code_consent import Consent
    from launcher.runs.submission import continue_run
    from launcher.spec import site as sites
    from launcher.store.selection import open_named_store
    from launcher.targets.runner import Runner, make_target

    study = make_study(experiment, data_directory=data, lock_path=lock, relock=relock)
    facts = sites.load(site)
    submission = continue_run(
        study.plan,
        open_named_store(store, site, writable=True),
        target=target,
        site=facts,
        budget_usd=experiment.budget_usd,
        locations=study.resolution.locations,
    )
    chosen = make_target(target, facts, say=lambda text: print(text, file=sys.stderr))
    return Runner(chosen, Consent(allow_code)).submit(submission)
