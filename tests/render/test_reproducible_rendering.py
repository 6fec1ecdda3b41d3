"""Renderings are reproducible: equal to the goldens, in another process, and through Helm alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from render_scenarios import SCENARIOS, make_site, on_a40, parse_all, rendered
from write_goldens import written

from launcher.manifests import helm
from launcher.manifests.chart_values import chart_directory
from launcher.manifests.render import of_try, render

ROOT = Path(__file__).parents[2]
_REGENERATE = "read the difference, then: python -m tests.render.write_goldens"


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return written()


def test_generated_files_are_current(made: dict[Path, str]) -> None:
    different = [
        str(path.relative_to(ROOT))
        for path, text in made.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert different == [], _REGENERATE


def test_every_golden_has_a_scenario(made: dict[Path, str]) -> None:
    there = {*Path(__file__).parent.glob("goldens/*"), *chart_directory().glob("ci/*")}
    assert there <= set(made), _REGENERATE


@pytest.mark.parametrize("name", SCENARIOS)
def test_rendering_twice_gives_the_same_bytes(name: str) -> None:
    assert rendered(name).to_yaml() == rendered(name).to_yaml()


_SCRIPT = """
import sys, time
time.time = lambda: 4102444800.0
sys.path[:0] = [sys.argv[1]]
from render_scenarios import rendered
sys.stdout.buffer.write(rendered("demo").to_yaml())
"""


def test_process_directory_hash_seed_and_date_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("{not: [a kubeconfig")
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(Path(__file__).parent)],
        capture_output=True,
        cwd=tmp_path,
        env={
            "PATH": "/nowhere",
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "4242",
            "TZ": "Asia/Kathmandu",
            "LC_ALL": "C",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(tmp_path / "broken"),
            "HELM_NAMESPACE": "elsewhere",
            "HELM_DEBUG": "true",
        },
        check=True,
        timeout=120,
    )
    assert done.stdout == rendered("demo").to_yaml()


@pytest.mark.parametrize("name", SCENARIOS)
def test_chart_with_printed_values_gives_the_same_objects(name: str) -> None:
    one = rendered(name)
    values = json.loads((chart_directory() / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8"))
    text = helm.template(chart_directory(), release=one.run_id, namespace=one.namespace, values=values)
    assert sorted(parse_all(text), key=str) == sorted(one.objects, key=str)


@pytest.mark.parametrize("name", SCENARIOS)
def test_yaml_parses_back_to_the_objects(name: str) -> None:
    one = rendered(name)
    assert parse_all(one.to_yaml()) == list(one.objects)


def test_strings_that_look_like_numbers_are_quoted() -> None:
    for text in ("12e45", "2e-05", "0x1f", "1_000", "010", ".5", "+1", "yes", "null", "12:30", "~", "NaN"):
        from launcher.manifests.object_yaml import object_yaml

        shown = object_yaml({"label": text}).decode()
        assert re.fullmatch(r"label: ('.*'|\"NaN\"|NaN)\n", shown), shown


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": "other"},
        {"start_timeout_s": 5},
        {"queue": "gpus"},
        {"store": {"inside": "s3://other"}},
        {"gpu_hour_usd": []},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_manifest_hash_changes_exactly_with_the_objects(changes: dict[str, object]) -> None:
    before, after = rendered("one-a40"), render(on_a40(1), make_site(**changes))
    assert (before.manifest_hash != after.manifest_hash) == (changes != {"gpu_hour_usd": []})
    assert before.run_id == after.run_id


def test_another_attempt_has_another_manifest_hash() -> None:
    first, second = rendered("demo"), rendered("demo", attempt=2)
    assert first.run_id == second.run_id
    assert not {item["metadata"]["name"] for item in first.objects} & {
        item["metadata"]["name"] for item in second.objects
    }


def test_later_try_differs_in_name_and_label_only() -> None:
    job = rendered("demo").stage_jobs["train-lora-s1"]
    third = of_try(job, 3)
    assert third["metadata"]["name"].endswith("-t3")
    assert job["metadata"]["name"].endswith("-t1")
    assert json.dumps(third) == json.dumps(job).replace('-t1"', '-t3"').replace(
        '"tuneyard.dev/try": "1"', '"tuneyard.dev/try": "3"'
    )


def test_helm_program_and_sdk_give_the_same_bytes() -> None:
    """Needs a helm program: HELM_BIN, or `helm` on PATH."""
    search = os.pathsep.join(os.environ.get("PATH", "").split(os.pathsep))
    binary = os.environ.get("TUNEYARD_TEST_HELM") or next(
        (path for folder in search.split(os.pathsep) if os.access(path := f"{folder}/helm", os.X_OK)), None
    )
    if binary is None:
        pytest.skip("there is no helm program")
    for name in SCENARIOS:
        one = rendered(name)
        arguments = {"release": one.run_id, "namespace": one.namespace, "values": one.values}
        by_sdk = helm.by_sdk(chart_directory(), **arguments)
        assert helm.by_binary(binary, chart_directory(), **arguments) == by_sdk, name


def test_name_that_looks_like_a_manifest_hash_is_unchanged() -> None:
    one = render(on_a40(1), make_site(namespace="fffff", queue="ffffe"))
    assert {item["metadata"]["namespace"] for item in one.objects} == {"fffff"}
    text = helm.template(
        chart_directory(), release=one.run_id, namespace="fffff", values=json.loads(json.dumps(one.values))
    )
    assert sorted(parse_all(text), key=str) == sorted(one.objects, key=str)
