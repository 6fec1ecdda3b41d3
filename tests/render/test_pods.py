"""Security, mounts, secrets and resources of a run's pods."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from render_scenarios import BARE_SITE, SCENARIOS, built_in, make_site, on_a40, pod_templates, rendered

from launcher.manifests.render import CONFIG_MAP_LIMIT_BYTES, render
from launcher.manifests.run_values import NAME_LIMIT_CHARACTERS
from launcher.spec.plan import Plan

ALLOWED_VOLUMES = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}


@pytest.fixture(params=SCENARIOS)
def one(request: pytest.FixtureRequest) -> Any:
    return rendered(request.param)


def environment(spec: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in spec["containers"][0]["env"]}


def secrets_of(spec: dict[str, Any]) -> set[str]:
    return set(re.findall(r"'(?:secretName|name)': '(store|hub|openai)'", str(spec["volumes"])))


def test_pods_meet_the_restricted_standard(one: Any) -> None:
    for name, template in pod_templates(one).items():
        spec = template["spec"]
        pod, container = spec["securityContext"], spec["containers"][0]["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == 10001
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["allowPrivilegeEscalation"] is False
        assert container["readOnlyRootFilesystem"] is True
        assert container["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= ALLOWED_VOLUMES
        assert len(spec["containers"]) == 1


def test_only_the_conductor_has_a_token(one: Any) -> None:
    for name, template in pod_templates(one).items():
        assert template["spec"]["automountServiceAccountToken"] is (name == "conductor")
        assert template["spec"]["enableServiceLinks"] is False
    assert one.stage_jobs.keys() <= pod_templates(one).keys()


def test_mounts_and_volumes_match(one: Any) -> None:
    for template in pod_templates(one).values():
        mounts = [item["name"] for item in template["spec"]["containers"][0]["volumeMounts"]]
        assert sorted(mounts) == sorted(item["name"] for item in template["spec"]["volumes"])


def test_memory_request_equals_limit_and_includes_shared_memory(one: Any) -> None:
    for name, job in one.stage_jobs.items():
        spec = job["spec"]["template"]["spec"]
        resources = spec["containers"][0]["resources"]
        for what in ("memory", "ephemeral-storage"):
            assert resources["requests"][what] == resources["limits"][what], name
        assert "cpu" not in resources["limits"]
        for volume in spec["volumes"]:
            if volume["name"] == "dshm":
                size_mib = int(volume["emptyDir"]["sizeLimit"].removesuffix("Mi"))
                assert 64 < size_mib <= int(resources["limits"]["memory"].removesuffix("Gi")) * 512


def test_names_fit_kubernetes_limits(one: Any) -> None:
    for item in [*one.objects, *one.stage_jobs.values()]:
        name = item["metadata"]["name"]
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= NAME_LIMIT_CHARACTERS
        assert name.startswith(one.run_id)
        assert one.manifest_hash in name
        assert item["metadata"]["namespace"] == "tuning"


def test_every_object_has_the_runs_labels(one: Any) -> None:
    for item in [*one.objects, *one.stage_jobs.values(), *pod_templates(one).values()]:
        labels = item["metadata"]["labels"]
        assert labels["tuneyard.dev/run"] == labels["app.kubernetes.io/instance"] == one.run_id
        assert labels["tuneyard.dev/attempt"] == "1"
        assert labels["tuneyard.dev/manifest"] == one.manifest_hash
        assert labels["app.kubernetes.io/managed-by"] == "launcher"
    for name, job in one.stage_jobs.items():
        for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
            assert labels["tuneyard.dev/stage"] == name
            assert labels["tuneyard.dev/try"] == "1"


def test_no_field_that_gitops_controllers_rewrite(one: Any) -> None:
    text = json.dumps([*one.objects, *one.stage_jobs.values()])
    for word in ("ttlSecondsAfterFinished", '"suspend"', "generateName", "helm.sh/", "argocd", "annotations"):
        assert word not in text


def test_config_map_holds_the_plan_and_every_stage_job(one: Any) -> None:
    config_map = next(item for item in one.objects if item["kind"] == "ConfigMap")
    plan_bytes = config_map["data"]["plan.json"].encode()
    assert config_map["immutable"] is True
    assert Plan.model_validate_json(plan_bytes).to_bytes() == plan_bytes
    jobs = {key: json.loads(text) for key, text in config_map["data"].items() if key.startswith("job-")}
    assert jobs == {f"job-{name}.json": job for name, job in one.stage_jobs.items()}
    assert len(json.dumps(config_map).encode()) < CONFIG_MAP_LIMIT_BYTES


def test_secrets_are_mounted_only_where_needed() -> None:
    needs = {name: secrets_of(t["spec"]) for name, t in pod_templates(rendered("one-a40")).items()}
    assert needs.pop("fetch-codellama34b") == {"store", "hub"}
    assert set(map(frozenset, needs.values())) == {frozenset({"store"})}
    needs = {name: secrets_of(t["spec"]) for name, t in pod_templates(rendered("hosted-only")).items()}
    assert {name for name, used in needs.items() if "openai" in used} == {"tune-gpt35-s1", "predict-gpt35-s1"}
    # A rehearsal calls no service: no key, although the site has one.
    assert "openai" not in str(pod_templates(render(built_in("demo"), make_site())))


def test_secret_files_are_readable_by_the_group_only() -> None:
    spec = pod_templates(rendered("hosted-only"))["tune-gpt35-s1"]["spec"]
    assert environment(spec)["OPENAI_API_KEY_FILE"] == "/var/run/secrets/tuneyard/openai/api_key"
    assert environment(spec)["TUNEYARD_STORE_CREDENTIALS"] == "/var/run/secrets/tuneyard/store"
    modes = re.findall(r"'defaultMode': (\d+)", str(spec["volumes"]))
    assert [oct(int(mode)) for mode in modes] == ["0o440", "0o440"]
    assert "secretKeyRef" not in str(spec)


def test_pods_without_store_keys_use_their_own_identity() -> None:
    for template in pod_templates(rendered("demo")).values():
        assert "secret" not in json.dumps(template["spec"]["volumes"]).lower()
        assert "TUNEYARD_STORE_CREDENTIALS" not in environment(template["spec"])


def test_gpu_pods_select_the_product_and_tolerate_the_taint() -> None:
    templates = pod_templates(rendered("four-a40"))
    train, predict = templates["train-codellama34b-s1"]["spec"], templates["predict-codellama34b-s1"]["spec"]
    for spec, gpus in ((train, "4"), (predict, "1")):
        assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A40"}
        assert spec["tolerations"] == [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        ]
        assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == gpus
    for name in ("prepare", "report", "conductor", "score-codellama34b-s1"):
        assert not {"nodeSelector", "tolerations"} & set(templates[name]["spec"])
        assert "nvidia" not in str(templates[name])


def test_several_nodes_are_an_indexed_job_with_a_headless_service() -> None:
    one = rendered("two-nodes")
    (service,) = [item for item in one.objects if item["kind"] == "Service"]
    job = one.stage_jobs["train-codellama34b-s1"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == (
        "Indexed",
        2,
        2,
    )
    pod = job["spec"]["template"]
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert environment(pod["spec"])["TUNEYARD_NODES"] == "2"
    assert environment(pod["spec"])["TUNEYARD_RENDEZVOUS_SERVICE"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert "Service" not in {item["kind"] for item in rendered("one-a40").objects}
    assert "completionMode" not in one.stage_jobs["predict-codellama34b-s1"]["spec"]


def test_only_torch_stages_use_the_trainer_image() -> None:
    def images(name: str) -> dict[str, str]:
        shown = {}
        for stage, template in pod_templates(rendered(name)).items():
            shown[stage] = template["spec"]["containers"][0]["image"].split("@")[0].rpartition("/")[2]
        return shown

    a40 = images("one-a40")
    assert a40["train-codellama34b-s1"] == a40["predict-codellama34b-s1"] == "trainer"
    assert a40["fetch-codellama34b"] == a40["prepare"] == a40["report"] == "worker"
    assert set(images("hosted-only").values()) == {"worker", "conductor"}
    demo = images("demo")
    assert demo["fetch-untuned"] == demo["tune-hosted-s1"] == demo["predict-hosted-s1"] == "trainer"


def test_trainers_have_two_minutes_of_grace() -> None:
    templates = pod_templates(rendered("one-a40"))
    assert templates["train-codellama34b-s1"]["spec"]["terminationGracePeriodSeconds"] == 120
    assert templates["prepare"]["spec"]["terminationGracePeriodSeconds"] == 30


def test_conductor_job_fails_only_on_closing_exit_codes() -> None:
    job = rendered("demo").objects[-1]
    assert job["spec"]["backoffLimit"] == 20
    ignored, closing = job["spec"]["podFailurePolicy"]["rules"]
    assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert closing["action"] == "FailJob"
    assert not {0, 75, 137, 143} & set(closing["onExitCodes"]["values"])
    assert {1, 10, 20} <= set(closing["onExitCodes"]["values"])


def test_demo_fits_a_small_node() -> None:
    for profile in ("demo", "smoke"):
        jobs = render(built_in(profile), BARE_SITE).stage_jobs
        for name, job in jobs.items():
            requests = job["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
            assert int(requests["ephemeral-storage"].removesuffix("Gi")) <= 4, name


def test_scratch_fits_a_large_model() -> None:
    jobs = render(on_a40(1), make_site()).stage_jobs

    def scratch_gib(name: str) -> int:
        (volume,) = [v for v in jobs[name]["spec"]["template"]["spec"]["volumes"] if v["name"] == "scratch"]
        return int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))

    weights_gib = 33743970304 * 2 / 2**30
    assert 0 <= scratch_gib("fetch-codellama34b") - (2 * weights_gib + 5) < 1
    assert 0 <= scratch_gib("train-codellama34b-s1") - (weights_gib + 10) < 1
