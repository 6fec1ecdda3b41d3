"""Overlays: strategic merge, the pods they reach, and what they must not change or contain."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from render_scenarios import pod_templates, rendered
from test_manifest_schemas import VERSIONS, errors

from launcher.manifests.overlay import merge
from launcher.outcome import Failure, Reason

TOLERATION = {"key": "team", "operator": "Exists"}


def specs(overlay: dict[str, Any], scenario: str = "one-a40") -> dict[str, dict[str, Any]]:
    templates = pod_templates(rendered(scenario, overlay=overlay))
    return {name: template["spec"] for name, template in templates.items()}


def problems(overlay: dict[str, Any], scenario: str = "one-a40") -> str:
    with pytest.raises(Failure) as caught:
        rendered(scenario, overlay=overlay)
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert caught.value.where == "--overlay"
    return "\n".join(caught.value.problems)


#: original, patch, merged: as `kubectl patch --type strategic` gives them.
MERGES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a mapping merges": ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
    "null deletes a key": ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
    "a mapping is replaced": ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
    "a mapping is emptied": ({"a": {"b": 1}, "c": 1}, {"a": {"$patch": "delete"}}, {"a": {}, "c": 1}),
    "containers merge by name": (
        {"containers": [{"name": "a", "image": "x"}, {"name": "b"}]},
        {"containers": [{"name": "a", "tty": True}, {"name": "c"}]},
        {"containers": [{"name": "a", "image": "x", "tty": True}, {"name": "c"}, {"name": "b"}]},
    ),
    "an item is deleted": (
        {"volumes": [{"name": "a"}, {"name": "b"}]},
        {"volumes": [{"name": "a", "$patch": "delete"}]},
        {"volumes": [{"name": "b"}]},
    ),
    "a list is replaced": (
        {"volumes": [{"name": "a"}]},
        {"volumes": [{"$patch": "replace"}, {"name": "b"}]},
        {"volumes": [{"name": "b"}]},
    ),
    "mounts merge by path": (
        {"volumeMounts": [{"mountPath": "/a", "name": "x"}]},
        {"volumeMounts": [{"mountPath": "/a", "name": "y"}]},
        {"volumeMounts": [{"mountPath": "/a", "name": "y"}]},
    ),
    "environment merges by name": (
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]},
        {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]},
    ),
    "untouched items keep their place": (
        {"env": [{"name": "A"}, {"name": "B"}, {"name": "C"}]},
        {"env": [{"name": "B", "value": "2"}]},
        {"env": [{"name": "A"}, {"name": "B", "value": "2"}, {"name": "C"}]},
    ),
    "tolerations have no key": ({"tolerations": [{"key": "a"}]}, {"tolerations": []}, {"tolerations": []}),
    "arguments are replaced": ({"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}),
    "a new mapping keeps no directive": ({}, {"a": {"$patch": "merge", "b": 1}}, {"a": {"b": 1}}),
    "null in a new mapping is nothing": ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
}


@pytest.mark.parametrize("name", MERGES)
def test_merge_equals_kubernetes_strategic_merge(name: str) -> None:
    original, patch, expected = MERGES[name]
    before = repr((original, patch))
    assert merge(original, patch) == expected
    assert repr((original, patch)) == before


def test_narrower_patches_override_wider_ones() -> None:
    found = specs(
        {
            "spec": {"priorityClassName": "all"},
            "conductor": {"spec": {"priorityClassName": "conductor"}},
            "stages": {"spec": {"priorityClassName": "stages"}},
            "kinds": {"train": {"spec": {"priorityClassName": "training"}}, "score": {"metadata": {}}},
            "names": {"prepare": {"spec": {"priorityClassName": "prepare"}}},
        }
    )
    chosen = {name: spec["priorityClassName"] for name, spec in found.items()}
    assert chosen == {
        "conductor": "conductor",
        "fetch-codellama34b": "stages",
        "prepare": "prepare",
        "train-codellama34b-s1": "training",
        "predict-codellama34b-s1": "stages",
        "score-codellama34b-s1": "stages",
        "report": "stages",
    }


def test_overlay_can_set_any_pod_field() -> None:
    overlay = {
        "metadata": {"annotations": {"example.org/owner": "team"}},
        "spec": {"tolerations": [TOLERATION], "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["s3.local"]}]},
        "stages": {
            "spec": {
                "volumes": [{"name": "more", "emptyDir": {"sizeLimit": "1.5Gi"}}],
                "containers": [
                    {
                        "name": "stage",
                        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                        "volumeMounts": [{"mountPath": "/more", "name": "more"}],
                        "resources": {"requests": {"cpu": "500m"}},
                    }
                ],
            }
        },
    }
    one = rendered("one-a40", overlay=overlay)
    for job in [*one.stage_jobs.values(), one.objects[-1]]:
        assert errors(VERSIONS[-1], job) == []
    spec = one.stage_jobs["train-codellama34b-s1"]["spec"]["template"]["spec"]
    assert spec["tolerations"] == [TOLERATION]
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in spec["containers"][0]["env"]
    assert {"name": "HOME", "value": "/scratch/home"} in spec["containers"][0]["env"]
    assert spec["containers"][0]["resources"]["requests"]["cpu"] == "500m"
    assert spec["containers"][0]["resources"]["requests"]["memory"] == "96Gi"


def test_overlay_changes_the_manifest_hash_not_the_run() -> None:
    plain, patched = rendered("demo"), rendered("demo", overlay={"spec": {"priorityClassName": "low"}})
    assert plain.run_id == patched.run_id
    assert plain.manifest_hash != patched.manifest_hash
    assert rendered("demo", overlay={"spec": {"priorityClassName": "low"}}).to_yaml() == patched.to_yaml()


def test_later_try_keeps_the_overlay() -> None:
    from launcher.manifests.render import of_try

    job = rendered("demo", overlay={"spec": {"priorityClassName": "low"}}).stage_jobs["prepare"]
    assert of_try(job, 2)["spec"]["template"]["spec"]["priorityClassName"] == "low"


def test_overlay_lists_every_problem_at_once() -> None:
    text = problems(
        {
            "ttlSecondsAfterFinished": 5,
            "kinds": {"training": {}},
            "names": {"train-x": {}},
            "stages": {"backoffLimit": 3, "spec": {"containers": [{"image": "x"}]}},
            "spec": {
                "volumes": [{"name": "a", "$patch": "remove"}, {"name": "b", "$patch": "replace"}],
                "$retainKeys": ["a"],
            },
        }
    )
    for part in (
        "ttlSecondsAfterFinished: not one of",
        "kinds.training: the plan has only",
        "names.train-x: the plan has only",
        "stages.backoffLimit: a pod template has only",
        "stages.spec.containers[0]: has no 'name'",
        "spec.volumes[0].$patch: must be replace, delete or merge",
        "spec.volumes[1].$patch: replace must be the item's only key",
        "spec.$retainKeys: not supported",
    ):
        assert part in text


def test_overlay_rejects_unknown_fields_and_wrong_types() -> None:
    text = problems(
        {
            "metadata": {"annotations": {"reviewed": datetime.date(2026, 1, 1)}, "labels": {"team": True}},
            "spec": {
                "tolerationz": [],
                "priority": "high",
                "hostNetwork": "no",
                "containers": [{"name": ["a"]}, {"name": "stage", "env": [{"name": "A", "value": 1}]}],
                "securityContext": {"runAsUser": True},
                "volumes": {"name": "a"},
            },
        }
    )
    for part in (
        "metadata.annotations.reviewed: must be text (in quotes)",
        "metadata.labels.team: must be text (in quotes)",
        "spec.tolerationz: no such field; did you mean tolerations?",
        "spec.priority: must be a whole number",
        "spec.hostNetwork: must be true or false",
        "spec.containers[0].name: must be text",
        "spec.containers[1].env[0].value: must be text",
        "spec.securityContext.runAsUser: must be a whole number",
        "spec.volumes: must be a list",
    ):
        assert part in text


def test_overlay_rejects_invalid_merged_pods() -> None:
    text = problems(
        {
            "metadata": {"labels": {"tuneyard.dev/stage": "prepare"}},
            # Every pod's, and the conductor has no such container.
            "spec": {"containers": [{"name": "stage", "tty": True}]},
            "stages": {"spec": {"volumes": [{"name": "plan", "$patch": "delete"}]}},
            "kinds": {
                "report": {
                    "spec": {"containers": [{"name": "stage", "resources": {"limits": {"memory": "-1Gi"}}}]}
                }
            },
        }
    )
    for part in (
        "conductor.metadata.labels.tuneyard.dev/stage: reserved for the run",
        "conductor.spec.containers[stage]: has no image",
        "prepare.spec.containers[stage]: mounts the volume 'plan', which the pod does not have",
        "report.spec.containers[0].resources.limits.memory: '-1Gi' is not a quantity",
    ):
        assert part in text


def test_overlay_cannot_change_reserved_fields() -> None:
    text = problems(
        {
            "metadata": {"labels": {"tuneyard.dev/run": "other", "team": "a"}},
            "spec": {"restartPolicy": "Bogus"},
            "conductor": {"spec": {"containers": [{"name": "conductor", "$patch": "delete"}]}},
            "kinds": {
                "train": {"spec": {"containers": [{"name": "stage", "args": ["sleep"]}]}},
                "score": {"spec": {"containers": [{"name": "stage", "command": ["sh"]}]}},
                "report": {
                    "spec": {"containers": [{"name": "stage", "resources": {"limits": {"memory": "16GiB"}}}]}
                },
            },
        }
    )
    for part in (
        "prepare.metadata.labels.tuneyard.dev/run: reserved for the run",
        "prepare.spec.restartPolicy: must stay Never",
        "conductor.spec.containers: the container 'conductor' must not be removed",
        "train-codellama34b-s1.spec.containers[stage]: args and command must not change",
        "score-codellama34b-s1.spec.containers[stage]: args and command must not change",
        "report.spec.containers[0].resources.limits.memory: '16GiB' is not a quantity",
    ):
        assert part in text
    assert "labels.team" not in text


@pytest.mark.parametrize(
    "overlay",
    [
        {"spec": []},
        {"stages": "x"},
        {"kinds": []},
        {"spec": {"containers": ["x"]}},
        {"spec": {"containers": {}}},
    ],
    ids=str,
)
def test_overlay_that_is_no_patch_is_a_failure(overlay: dict[str, Any]) -> None:
    assert problems(overlay)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password"])
def test_overlay_rejects_plain_secrets_without_repeating_them(name: str) -> None:
    patch = {"spec": {"containers": [{"name": "stage", "env": [{"name": name, "value": "sk-12345"}]}]}}
    text = problems({"stages": patch})
    assert "valueFrom.secretKeyRef" in text
    assert "sk-12345" not in text
    by_name = {"name": name, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    patch["spec"]["containers"][0]["env"] = [by_name]
    assert by_name in specs({"stages": patch})["prepare"]["containers"][0]["env"]
