"""Plans are pure: equal experiments give equal bytes and run ids on any machine, day and directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import HOSTED, LOCK, LORA, UNTUNED, document, experiment, make_plan

from launcher.outcome import Failure, Reason
from launcher.resolve.resolver import resolve
from launcher.spec import plan as plan_module
from launcher.spec.experiment import Experiment
from launcher.spec.loading import load, validate
from launcher.spec.lock import Lock, LockedModel
from launcher.spec.plan import Plan, parse
from launcher.spec.planner import plan
from launcher.spec.stages import VERSIONS, HubModel

_PLAN_SCRIPT = """
import sys, time
if sys.argv[1] != "now":
    time.time = lambda: float(sys.argv[1])
from launcher.resolve.resolver import resolve
from launcher.spec.loading import load
from launcher.spec.planner import plan
made = resolve(load("sql", profile="demo"))
sys.stdout.buffer.write(plan(made.experiment, made.lock).to_bytes())
"""


def keys(one: Plan) -> dict[str, str]:
    return {stage.name: stage.key for stage in one.stages}


@pytest.mark.parametrize("profile", ["smoke", "demo"])
def test_built_in_experiments_keep_their_run_ids(
    profile: str, check_recorded_keys: Callable[[str, Plan], None]
) -> None:
    made = resolve(load("sql", profile=profile))
    check_recorded_keys(f"resolved sql {profile}", plan(made.experiment, made.lock))


@pytest.mark.parametrize(
    ("hash_seed", "moment", "zone"), [("1", "now", "UTC"), ("4242", "4102444800", "Asia/Kathmandu")]
)
def test_plan_bytes_do_not_depend_on_process_directory_hash_seed_or_date(
    tmp_path: Path, hash_seed: str, moment: str, zone: str
) -> None:
    made = resolve(load("sql", profile="demo"))
    done = subprocess.run(
        [sys.executable, "-c", _PLAN_SCRIPT, moment],
        capture_output=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "TZ": zone,
            "LC_ALL": "C",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(Path(plan_module.__file__).parents[2]),
        },
        check=True,
        timeout=60,
    )
    assert done.stdout == plan(made.experiment, made.lock).to_bytes()


def test_model_directory_is_identified_by_its_content_not_its_path(tmp_path: Path) -> None:
    plans = []
    for place in ("here", "there"):
        directory = tmp_path / place / "model"
        directory.mkdir(parents=True)
        (directory / "config.json").write_text("{}")
        (directory / "model.safetensors").write_bytes(b"weights")
        contenders = [{**UNTUNED, "model": str(directory)}]
        made = resolve(experiment(contenders=contenders))
        plans.append(plan(made.experiment, made.lock))
    assert plans[0].to_bytes() == plans[1].to_bytes()
    assert str(tmp_path).encode() not in plans[0].to_bytes()


def test_stages_are_in_topological_order() -> None:
    made = make_plan(contenders=[UNTUNED, LORA, {**LORA, "name": "b"}, HOSTED], seeds=[1, 2])
    seen: set[str] = set()
    for stage in made.stages:
        assert set(stage.needs.values()) <= seen, stage.name
        assert stage.name not in seen
        seen.add(stage.name)
    assert made.stages[-1].name == "report"


def test_stage_names_fit_kubernetes_limits() -> None:
    name, seed = "abcdefghijkl", 2**32 - 1
    made = make_plan(
        name="a" * 16,
        contenders=[{**LORA, "name": name}, {**HOSTED, "name": "bcdefghijklm"}],
        seeds=[1, seed],
    )
    for stage in made.stages:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", stage.name)
        assert len(f"{made.run_id}-{stage.name}") <= 60
    with pytest.raises(Failure, match="1 problem"):
        experiment(name="a" * 17)
    with pytest.raises(Failure, match="1 problem"):
        experiment(contenders=[{**LORA, "name": "a" * 13}])


#: A change of the tiny experiment -> the stages whose keys change (what depends on them as well).
HASHED = {
    "data.seed=1": {"prepare"},
    "data.train_rows=10": {"prepare"},
    "contenders[lora].training.steps=7": {"train-lora-s1"},
    "contenders[lora].training.learning_rate=1e-5": {"train-lora-s1"},
    "contenders[lora].lora.r=3": {"train-lora-s1"},
    "contenders[lora].prompt=plain": {"train-lora-s1", "predict-lora-s1"},
    "contenders[lora].hardware.threads=3": {"train-lora-s1", "predict-lora-s1"},
    "contenders[lora].hardware.count=2": {"train-lora-s1"},
    "contenders[untuned].generation.batch_rows=3": {"predict-untuned"},
    "contenders[untuned].generation.max_new_tokens=3": {"predict-untuned"},
    "baseline=lora": {"report"},
}
NOT_HASHED = [
    "budget_usd=5",
    "description=other words",
    "contenders[lora].hardware.memory_gib=64",
    "contenders[untuned].hardware.memory_gib=64",
]


def changed(*assignments: str) -> Plan:
    from launcher.spec.documents import assign

    made = json.loads(json.dumps(document()))
    for assignment in assignments:
        assign(made, assignment)
    return plan(validate(made, where="test"), LOCK)


def with_dependents(made: Plan, names: set[str]) -> set[str]:
    reached = set(names)
    for stage in made.stages:
        if reached & set(stage.needs.values()):
            reached.add(stage.name)
    return reached


@pytest.mark.parametrize("assignment", HASHED)
def test_setting_changes_keys_of_its_stage_and_dependents_only(
    assignment: str,
) -> None:
    before, after = keys(make_plan()), keys(changed(assignment))
    different = {name for name in before if before[name] != after[name]}
    assert different == with_dependents(make_plan(), HASHED[assignment])
    assert make_plan().run_id != changed(assignment).run_id


@given(st.sets(st.sampled_from([*HASHED, *NOT_HASHED])))
@settings(deadline=None, max_examples=60)
def test_run_id_changes_iff_a_hashed_setting_changes(assignments: set[str]) -> None:
    made = changed(*sorted(assignments))
    assert (made.run_id != make_plan().run_id) == bool(assignments & set(HASHED))


@given(st.floats(0, 1e9), st.text(max_size=50))
@settings(deadline=None, max_examples=30)
def test_budget_and_description_change_no_byte(budget_usd: float, description: str) -> None:
    made = make_plan(budget_usd=budget_usd, description=description)
    assert made.to_bytes() == make_plan().to_bytes()


def test_added_contender_reuses_every_other_stage() -> None:
    before = keys(make_plan())
    after = keys(make_plan(contenders=[UNTUNED, LORA, {**LORA, "name": "more", "lora": {"r": 2}}]))
    assert {name for name in before if before[name] != after[name]} == {"report"}


def test_contenders_of_one_model_share_its_fetch() -> None:
    assert [stage.name for stage in make_plan().stages if stage.kind == "fetch"] == ["fetch-untuned"]


@pytest.mark.parametrize("kind", ["fetch", "prepare", "train", "predict", "score", "report"])
def test_raised_stage_version_changes_its_stages_and_dependents_only(
    monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    before = make_plan()
    monkeypatch.setitem(VERSIONS, kind, VERSIONS[kind] + 1)
    after = keys(make_plan())
    raised = {stage.name for stage in before.stages if stage.kind == kind}
    assert {name for name, key in keys(before).items() if after[name] != key} == with_dependents(
        before, raised
    )


def test_model_revision_changes_the_run_id() -> None:
    runs = set()
    for revision in ("a" * 40, "b" * 40):
        lock = Lock(
            models={"random-llama": LockedModel(source=HubModel(repository="o/m", revision=revision))}
        )
        runs.add(plan(experiment(), lock).run_id)
    assert len(runs) == 2


def test_plan_round_trips() -> None:
    made = make_plan()
    assert parse(made.to_bytes(), "plan.json").to_bytes() == made.to_bytes()


def test_stages_carry_contender_and_seed() -> None:
    made = make_plan(contenders=[UNTUNED, LORA, HOSTED], seeds=[1, 2])
    subjects = {stage.name: (stage.contender, stage.seed) for stage in made.stages}
    assert subjects["prepare"] == subjects["report"] == (None, None)
    assert subjects["predict-untuned"] == ("untuned", None)
    assert subjects["train-lora-s2"] == subjects["score-lora-s2"] == ("lora", 2)
    assert subjects["tune-hosted-s1"] == ("hosted", 1)


@pytest.mark.parametrize("contender", ["s1", "a-b", "train"])
def test_contender_is_not_parsed_from_the_stage_name(contender: str) -> None:
    made = make_plan(contenders=[{**UNTUNED, "name": contender}], seeds=[1])
    assert {(stage.contender, stage.seed) for stage in made.stages if stage.contender} == {(contender, None)}


def _without_subjects(made: Plan) -> dict[str, Any]:
    """The plan as launchers wrote it before stages had `contender`, `seed` and `evaluation`."""
    value: dict[str, Any] = json.loads(made.to_bytes())
    for stage in value["stages"]:
        for added in ("contender", "seed", "evaluation"):
            del stage[added]
    return value


def test_plan_of_an_older_launcher_is_read_as_the_same_plan() -> None:
    made = make_plan(contenders=[UNTUNED, LORA, HOSTED], seeds=[1, 2])
    assert parse(json.dumps(_without_subjects(made)), "plan.json") == made


def _tampered() -> dict[str, Any]:
    def setting(value: dict[str, Any]) -> None:
        value["stages"][-2]["settings"]["task"] = "viggo"

    def key(value: dict[str, Any]) -> None:
        value["stages"][0]["key"] = "0" * 64

    def version(value: dict[str, Any]) -> None:
        value["stages"][0]["version"] += 1

    def needs(value: dict[str, Any]) -> None:
        value["stages"][-1]["needs"]["data"] = "nowhere"

    def order(value: dict[str, Any]) -> None:
        value["stages"].reverse()

    def run_id(value: dict[str, Any]) -> None:
        value["run_id"] = "tiny-00000000"

    def dropped(value: dict[str, Any]) -> None:
        value["stages"].pop()

    def doubled(value: dict[str, Any]) -> None:
        value["stages"].append(value["stages"][0])

    def name(value: dict[str, Any]) -> None:
        value["stages"][-2]["contender"] = "untuned"

    def extra(value: dict[str, Any]) -> None:
        value["note"] = "hello"

    return {
        f.__name__: f for f in (setting, key, version, needs, order, run_id, dropped, doubled, name, extra)
    }


@pytest.mark.parametrize("change", _tampered().values(), ids=_tampered())
def test_tampered_plan_is_refused(change: Any) -> None:
    value = json.loads(make_plan().to_bytes())
    change(value)
    with pytest.raises(Failure) as caught:
        parse(json.dumps(value), "plan.json")
    assert caught.value.reason is Reason.BAD_EXPERIMENT


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"format": 1}', b"[" * 100_000])
def test_malformed_plan_is_refused(data: bytes) -> None:
    with pytest.raises(Failure) as caught:
        parse(data, "plan.json")
    assert caught.value.reason is Reason.BAD_EXPERIMENT


def test_newer_plan_format_says_to_upgrade() -> None:
    with pytest.raises(Failure, match="plan format 9 is newer") as caught:
        parse(b'{"format": 9, "shape": "unknown"}', "plan.json")
    assert caught.value.reason is Reason.UNSUPPORTED


def test_model_missing_from_the_lock_is_named() -> None:
    with pytest.raises(Failure, match="the lock has no model 'random-llama'"):
        plan(Experiment.model_validate(document()), Lock())
