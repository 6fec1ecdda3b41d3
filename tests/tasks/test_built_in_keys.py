"""Stage keys and run ids of the built-in experiments, recorded before tasks became folders.

If one changes, finished work is not found again. The outside names are locked to made-up digests.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.spec.contenders import HostedModel
from launcher.spec.experiment import Experiment
from launcher.spec.loading import load
from launcher.spec.lock import Lock, LockedModel
from launcher.spec.planner import plan
from launcher.spec.stages import HubModel

KEYS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "built_in_keys.json").read_text(encoding="ascii")
)


@pytest.mark.parametrize("experiment_and_profile", KEYS)
def test_built_in_experiments_keep_their_stage_keys_and_run_ids(experiment_and_profile: str) -> None:
    name, profile = experiment_and_profile.split()
    experiment = load(name, profile=profile)
    made = plan(experiment, _lock(experiment))
    found = {"run_id": made.run_id, **{stage.name: stage.key for stage in made.stages}}
    assert found == KEYS[experiment_and_profile]


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
