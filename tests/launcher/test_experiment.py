"""What a user writes is taken exactly, or refused with every problem at once and its path."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tiny import HOSTED, LORA, UNTUNED, document

from launcher.outcome import Failure, Reason
from launcher.spec.contenders import LoraContender
from launcher.spec.experiment import Experiment
from launcher.spec.loading import built_in_names, load, validate
from launcher.store.records import Record

FULL: dict[str, Any] = {
    "contenders": [
        {**LORA, "lora": {}, "training": {}, "generation": {}, "hardware": {}},
        {**UNTUNED, "generation": {}, "hardware": {}},
        HOSTED,
        {**HOSTED, "name": "rehearsed", "provider": "rehearsal", "rehearsal": {"lora": {}}},
        {"name": "asked", "kind": "prompted", "provider": "openai", "model": "gpt-x"},
    ],
    "data": {},
}


def refused(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(Failure) as caught:
        validate(document(**changes), where="mine.yaml")
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert caught.value.where == "mine.yaml"
    return caught.value.problems


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(
        tmp_path / "mine.yaml",
        "name: tiny\ntask: sql\ncontenders:\n"
        "  - {name: untuned, kind: prompted, model: random-llama}\n"
        "  - {name: lora, kind: lora, model: random-llama}\n"
        "profiles:\n  big: {data: {train_rows: 1000}}\n  small: {data: {train_rows: 10}, seeds: [1, 2]}\n",
    )


def test_all_problems_are_reported_at_once_each_with_its_path() -> None:
    problems = refused(
        contenders=[
            {**HOSTED, "epochs": 0},
            {**LORA, "lora": {"r": 0, "targets": [1]}, "training": {"steps": "many"}, "bogus": 1},
            {**UNTUNED, "kind": "what"},
            dict(LORA),
        ],
        seeds=["x", -1],
        baseline="nobody",
        budget_usd=-1.0,
    )
    assert [problem.partition(": ")[0] for problem in problems] == [
        "contenders[0].epochs",
        "contenders[1].lora.r",
        "contenders[1].lora.targets[0]",
        "contenders[1].training.steps",
        "contenders[1].bogus",
        "contenders[2]",
        "seeds[0]",
        "seeds[1]",
        "budget_usd",
        "contenders[3].name",
        "baseline",
    ]
    assert "contenders[1].lora.r: Input should be greater than or equal to 1 (got 0)" in problems


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every mapping of a document, as the path to it."""
    if isinstance(value, dict):
        return [path, *(place for key, inner in value.items() for place in _places(inner, (*path, key)))]
    if isinstance(value, list):
        return [place for index, inner in enumerate(value) for place in _places(inner, (*path, index))]
    return []


@pytest.mark.parametrize("place", _places({**document(), **FULL}), ids=str)
def test_a_misspelt_key_is_refused_at_every_level(place: tuple[Any, ...]) -> None:
    changed = copy.deepcopy(document(**FULL))
    inner: Any = changed
    for step in place:
        inner = inner[step]
    inner["mispelt"] = 1
    with pytest.raises(Failure) as caught:
        validate(changed, where="mine.yaml")
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*place, "mispelt"))
    assert caught.value.problems == (f"{path[1:]}: no such key",)


def test_every_user_facing_model_is_strict() -> None:
    queue: list[type[BaseModel]] = list(BaseModel.__subclasses__())
    ours: list[type[BaseModel]] = []
    while queue:
        one = queue.pop()
        queue += one.__subclasses__()
        # Records are written by the launcher itself, and read across versions.
        if one.__module__.startswith("launcher.") and not issubclass(one, Record):
            ours.append(one)
    assert Experiment in ours
    for model in ours:
        assert (model.model_config.get("extra"), model.model_config.get("strict")) == ("forbid", True), model


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 3},
        {"name": "Upper"},
        {"name": "ends-with-newline\n"},
        {"name": "-dash"},
        {"name": "seventeen-letters"},
        {"task": ["sql"]},
        {"task": "poetry"},
        {"contenders": []},
        {"contenders": {}},
        {"contenders": "untuned"},
        {"contenders": [1]},
        {"data": {"train_rows": "400"}},
        {"data": {"train_rows": 0}},
        {"data": {"train_rows": True}},
        {"data": {"source": "viggo"}},
        {"data": []},
        {"seeds": []},
        {"seeds": [1, 1]},
        {"seeds": [1.5]},
        {"seeds": [2**32]},
        {"budget_usd": float("nan")},
        {"budget_usd": float("inf")},
        {"scorers": ["exact"]},
        {"description": ["a"]},
        {"format": "1"},
        {"contenders": [{**UNTUNED, "model": ""}]},
        {1: 2},
    ],
    ids=str,
)
def test_each_inconsistency_is_one_problem(changes: dict[Any, Any]) -> None:
    with pytest.raises(Failure) as caught:
        validate({**document(), **changes}, where="mine.yaml")
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert len(caught.value.problems) == 1, caught.value.problems


def test_two_stages_can_never_get_the_same_name() -> None:
    problems = refused(contenders=[{**LORA, "name": "a"}, {**UNTUNED, "name": "a-s1"}])
    assert problems == ("contenders[1].name: 'a-s1' ends like a seed; stages are named that way",)


def test_a_newer_format_is_refused_before_anything_else_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "new.yaml", "format: 2\nprofiles: 7\ndefault_profile: [x]\nshape: other\n")
    with pytest.raises(Failure, match="format 2 is newer than this launcher's 1") as caught:
        load(file)
    assert "upgrade" in caught.value.next_step


@pytest.mark.parametrize("text", ["2e-5", "2E-5", "2.0e-5", ".2e-4", "0.00002", "+2e-5"])
def test_a_learning_rate_is_a_number_however_it_is_written(tmp_path: Path, text: str) -> None:
    file = write(
        tmp_path / "mine.yaml",
        "name: tiny\ntask: sql\ncontenders: "
        f"[{{name: lora, kind: lora, model: random-llama, training: {{learning_rate: {text}}}}}]",
    )
    contender = load(file).contenders[0]
    assert isinstance(contender, LoraContender)
    assert contender.training.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b\n", "line 2, column 1: the key 'name' is given twice"),
        ("data: {seed: 1, seed: 2}\n", "line 1, column 17: the key 'seed' is given twice"),
        ("a: [1\n", "line 2"),
        ("a: \tb: c\n", "not YAML"),
        ("a: 2023-13-45\n", "not YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("{a: " * 3000 + "1" + "}" * 3000, "nested too deeply"),
        ("? " * 3000 + "a", "nested too deeply"),
        ("a: &x [*x]\nname: *x\n", "problem"),
        ("{}[]", "not YAML"),
        ("just text", "must be a mapping"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: !!python/object/apply:os.system [true]\n", "not YAML"),
        ("a: \x01\n", "not YAML"),
    ],
)
def test_hostile_yaml_is_one_clear_message(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        load(write(tmp_path / "mine.yaml", text))
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert said in caught.value.text()
    assert str(tmp_path / "mine.yaml") in caught.value.text()


def test_a_key_that_comes_from_an_anchor_may_be_given_again(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.yaml",
        "name: tiny\ntask: sql\ncontenders:\n"
        "  - &a {name: a, kind: prompted, model: random-llama}\n"
        "  - &b {<<: *a, name: b}\n"
        "  - {<<: *b, name: c, model: other}\n",
    )
    assert [(c.name, c.model) for c in load(file).contenders] == [
        ("a", "random-llama"),
        ("b", "random-llama"),
        ("c", "other"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profiles: [a]\ndefault_profile: a\n", "must be a mapping"),
        ("profiles: {a: [1]}\ndefault_profile: a\n", "profiles.a: must be a mapping"),
        ("profiles: {a: {}, 1: {}}\ndefault_profile: [a]\n", "no profile"),
        ("default_profile: demo\n", "it has: none"),
    ],
)
def test_malformed_profiles_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        load(write(tmp_path / "mine.yaml", text))


def test_a_profile_is_merged_over_the_file(file: str) -> None:
    assert load(file).data.train_rows is None
    assert load(file, profile="big").data.train_rows == 1000
    small = load(file, profile="small")
    assert (small.data.train_rows, small.seeds) == (10, (1, 2))


def test_an_unknown_profile_lists_the_known_ones(file: str) -> None:
    with pytest.raises(Failure, match="no profile 'huge'; it has: big, small"):
        load(file, profile="huge")


def test_files_then_sets_win_over_the_profile(file: str, tmp_path: Path) -> None:
    over = Path(write(tmp_path / "over.yaml", "data: {train_rows: 5, test_rows: 7}\n"))
    last = Path(write(tmp_path / "last.yaml", "data: {test_rows: 8}\n"))
    loaded = load(file, profile="big", files=(over, last), sets=("data.train_rows=3",))
    assert (loaded.data.train_rows, loaded.data.test_rows) == (3, 8)


@pytest.mark.parametrize(
    "path",
    ["contenders[1].lora.r", "contenders[lora].lora.r", "contenders.lora.lora.r", "contenders[1][lora][r]"],
)
def test_set_reaches_a_contender_by_index_or_name(file: str, path: str) -> None:
    contender = load(file, sets=(f"{path}=16",)).contenders[1]
    assert isinstance(contender, LoraContender)
    assert contender.lora.r == 16


def test_set_reads_its_value_as_yaml(file: str) -> None:
    loaded = load(
        file, sets=("seeds=[3, 4]", "description='a=b'", "contenders[lora].training.learning_rate=2e-5")
    )
    assert (loaded.seeds, loaded.description) == ((3, 4), "a=b")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("data.train_rows", "write path=value"),
        ("=3", "is not a path"),
        ("data..rows=3", "is not a path"),
        ("contenders[7].model=x", "there is no element 7; the list has 2"),
        ("contenders[nobody].model=x", "no element is named 'nobody'; there are untuned, lora"),
        ("name.first=x", "name"),
        ("seeds[0].x=1", "seeds"),
        ("data.train_rows=[", "not YAML"),
        ("data.trian_rows=3", "data.trian_rows: no such key"),
    ],
)
def test_a_set_path_that_does_not_exist_is_a_problem(file: str, assignment: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        load(file, sets=("seeds=[1]", assignment))
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert said in "\n".join(caught.value.problems)


def test_overrides_do_not_leak_into_the_next_load(file: str) -> None:
    load(file, profile="small", sets=("contenders[lora].lora.r=16",))
    contender = load(file).contenders[1]
    assert isinstance(contender, LoraContender)
    assert contender.lora.r == 8


def test_an_unknown_name_lists_the_built_in_ones() -> None:
    with pytest.raises(Failure, match="neither built in \\(sql, viggo\\) nor a file") as caught:
        load("nothing")
    assert caught.value.reason is Reason.MISSING_INPUT


@pytest.mark.parametrize("name", built_in_names())
@pytest.mark.parametrize("profile", ["demo", "paper", "smoke"])
def test_built_in_experiments_load_in_every_profile(name: str, profile: str) -> None:
    assert load(name, profile=profile).name == name
    assert load(name) == load(name, profile="demo")


@pytest.mark.parametrize("name", ["sql", "viggo"])
def test_paper_holds_the_studys_settings(name: str) -> None:
    contender = load(name, profile="paper").contenders[0]
    assert isinstance(contender, LoraContender)
    assert contender.model == "codellama-34b"
    assert contender.lora.model_dump() == {
        "r": 8,
        "alpha": 16,
        "dropout": 0.05,
        "targets": ("q_proj", "k_proj", "v_proj", "o_proj"),
    }
    training = contender.training
    assert (training.learning_rate, training.warmup_steps) == (3e-4, 100)
    assert (training.steps, training.batch_rows, training.max_length_tokens) == (400, 128, 512)
    assert (training.loss, training.quantization) == ("prompt-and-answer", "int8")
    assert (contender.hardware.device, contender.hardware.count) == ("NVIDIA-A40", 1)


def test_the_studys_gpu_price_is_in_the_catalogue_with_source_and_date() -> None:
    from launcher.spec import catalog

    price = catalog.prices().gpu("NVIDIA-A40")
    assert price is not None
    assert (price.usd, price.date.year) == (0.475, 2023)
    assert price.source
