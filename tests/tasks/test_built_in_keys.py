"""Stage keys and run ids of the built-in experiments. The outside names are locked to made-up digests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from launcher.spec.contenders import HostedModel
from launcher.spec.experiment import Experiment
from launcher.spec.loading import load
from launcher.spec.lock import Lock, LockedModel
from launcher.spec.plan import Plan
from launcher.spec.planner import plan
from launcher.spec.stages import HubModel


@pytest.mark.parametrize("profile", ["demo", "paper", "smoke"])
@pytest.mark.parametrize("name", ["sql", "viggo"])
def test_built_in_experiments_keep_their_stage_keys_and_run_ids(
    name: str, profile: str, check_recorded_keys: Callable[[str, Plan], None]
) -> None:
    experiment = load(name, profile=profile)
    check_recorded_keys(f"{name} {profile}", plan(experiment, _lock(experiment)))


def test_a_built_in_tasks_plan_has_no_keys_of_a_folder_or_of_settings() -> None:
    experiment = load("sql", profile="smoke")
    made = plan(experiment, _lock(experiment))
    assert "settings" not in made.experiment
    assert "task_files" not in made.lock
    assert "settings" not in made.stage("prepare").settings


def _lock(experiment: Experiment) -> Lock:
    names = {contender.model for contender in experiment.contenders}
    names |= {
        contender.rehearsed.stand_in
        for contender in experiment.contenders
        if isinstance(contender, HostedModel) and contender.rehearsed is not None
    }
    models = {name: LockedModel(source=HubModel(repository=f"o/{name}", revision="0" * 40)) for name in names}
    files = {} if experiment.data.source == "sample" else {"rows.json": "a" * 64}
    return Lock(models=models, data_files=files)
