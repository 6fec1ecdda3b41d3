"""A secret that is written out in an overlay or a site file is refused, with its path and without being repeated."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli.main import main

Document = dict[str, Any]

#: Put together at run time, so that no scanner takes this file for a leak. `CANARY` marks what no output may repeat.
CANARY = "Zq7Xw2Lm9Rt4Kp8Vn3Bs6Hd1"
OPENAI = "sk-" + "proj-" + CANARY
HUB = "hf" + "_" + CANARY
GITHUB = "ghp" + "_" + CANARY
GITLAB = "glpat" + "-" + CANARY
SLACK = "xoxb" + "-" + CANARY
AWS_ID = "AKIA" + "Z7XW2LM9RT4KP8VN"
AWS_SECRET = CANARY + "/x9Qe5Yt0Uf3Jc7Ga"
JWT = ".".join(("eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxIn0", CANARY))
PEM = "-----BEGIN " + "RSA PRIVATE KEY-----\n" + CANARY + "\n"
REGISTRY = json.dumps(
    {"auths": {"registry.example": {"auth": base64.b64encode(b"ci:hunter2hunter2").decode()}}}
)


def stage(**container: Any) -> Document:
    return {"stages": {"spec": {"containers": [{"name": "stage", **container}]}}}


def env(name: str, value: Any) -> Document:
    return stage(env=[{"name": name, "value": value}])


def sidecar(**container: Any) -> Document:
    return {
        "stages": {
            "spec": {"initContainers": [{"name": "init", "image": "registry.example/i:1", **container}]}
        }
    }


def annotation(key: str, value: str) -> Document:
    return {"metadata": {"annotations": {key: value}}}


def header(name: str, value: str) -> Document:
    probe = {"httpGet": {"port": 80, "httpHeaders": [{"name": name, "value": value}]}}
    return sidecar(livenessProbe=probe)


def volume(**source: Any) -> Document:
    return {"stages": {"spec": {"volumes": [{"name": "v", **source}]}}}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


WAYS: dict[str, Document] = {
    "env OPENAI_API_KEY": env("OPENAI_API_KEY", CANARY),
    "env HF_TOKEN": env("HF_TOKEN", CANARY),
    "env AWS_SECRET_ACCESS_KEY": env("AWS_SECRET_ACCESS_KEY", CANARY),
    "env AWS_ACCESS_KEY_ID": env("AWS_ACCESS_KEY_ID", CANARY),
    "env in lower case": env("db_password", CANARY),
    "env in camel case": env("dbPassword", CANARY),
    "env without a separator": env("PGPASSWORD", CANARY),
    "env with a number": env("API_KEY_1", CANARY),
    "env with a suffix": env("OPENAI_KEY_PROD", CANARY),
    "env with VALUE": env("TOKEN_VALUE", CANARY),
    "env abbreviated": env("MYSQL_PWD", CANARY),
    "env PASSPHRASE": env("GPG_PASSPHRASE", CANARY),
    "env CREDENTIALS": env("GCP_CREDENTIALS", CANARY),
    "env AUTH": env("REGISTRY_AUTH", CANARY),
    "env COOKIE": env("SESSION_COOKIE", CANARY),
    "env _FILE with the secret itself": env("OPENAI_API_KEY_FILE", OPENAI),
    "env, a common word as the password": env("SMTP_PASSWORD", "hunter"),
    "env, OpenAI key under another name": env("BACKEND", OPENAI),
    "env, hub token under another name": env("BACKEND", HUB),
    "env, GitHub token under another name": env("BACKEND", GITHUB),
    "env, GitLab token under another name": env("BACKEND", GITLAB),
    "env, AWS key id under another name": env("BACKEND", AWS_ID),
    "env, AWS secret key under another name": env("BACKEND", AWS_SECRET),
    "env, JSON web token under another name": env("BACKEND", JWT),
    "env, private key": env("IDENTITY", PEM),
    "env, URL with a password": env("DATABASE_URL", f"postgres://tuner:{CANARY}@db.example/x"),
    "env, proxy with a password": env("HTTPS_PROXY", f"http://me:{CANARY}@proxy.example:3128"),
    "env, index with a token": env("PIP_INDEX_URL", f"https://{CANARY}@pypi.example/simple"),
    "env, signed URL": env("DATA_URL", f"https://b.example/x?X-Amz-Signature={CANARY}"),
    "env, key in a query": env("DATA_URL", f"https://b.example/x?api_key={CANARY}"),
    "env, Slack webhook": env("NOTIFY", "https://hooks.slack.com/" + f"services/T0/B0/{CANARY}"),
    "env, bearer header": env("EXTRA_HEADERS", f"Authorization: Bearer {CANARY}"),
    "env, several settings": env("JAVA_OPTS", f"-Xmx1g -Djavax.net.ssl.keyStorePassword={CANARY}"),
    "env, key in base64": env("BACKEND", encoded(OPENAI)),
    "env, key in base64 twice": env("BACKEND", encoded(encoded(OPENAI))),
    "env, settings in base64": env("BACKEND", encoded(f"password={CANARY}")),
    "env, key in JSON": env("SETTINGS", json.dumps({"api": {"token": CANARY}})),
    "env of an init container": sidecar(env=[{"name": "API_TOKEN", "value": CANARY}]),
    "env of the conductor": {
        "conductor": {
            "spec": {"containers": [{"name": "conductor", "env": [{"name": "API_TOKEN", "value": CANARY}]}]}
        }
    },
    "env of one kind": {"kinds": {"score": env("API_TOKEN", CANARY)["stages"]}},
    "env of one stage": {"names": {"report": env("API_TOKEN", CANARY)["stages"]}},
    "args, option and value": sidecar(args=["--api-key", CANARY]),
    "args, option=value": sidecar(args=[f"--api-key={CANARY}"]),
    "args, known form": sidecar(args=["login", HUB]),
    "args, user and password": sidecar(args=["-u", f"me:{CANARY}"]),
    "command with an assignment": sidecar(command=["sh", "-c", f"OPENAI_API_KEY={CANARY} fetch"]),
    "command with a header": sidecar(
        command=["sh", "-c", f"curl -H 'X-Api-Key: {CANARY}' https://x.example"]
    ),
    "command of a lifecycle hook": sidecar(
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", f"export DB_PASSWORD={CANARY}"]}}}
    ),
    "command of a probe": sidecar(livenessProbe={"exec": {"command": ["probe", f"--token={CANARY}"]}}),
    "header Authorization": header("Authorization", f"Basic {encoded('me:' + CANARY)}"),
    "header X-Api-Key": header("X-Api-Key", CANARY),
    "header with a token in another name": header("X-Forwarded", f"Bearer {CANARY}"),
    "probe path with a key": sidecar(livenessProbe={"httpGet": {"port": 80, "path": f"/?api_key={CANARY}"}}),
    "annotation named like a key": annotation("example.org/api-key", CANARY),
    "annotation with a token": annotation("example.org/note", SLACK),
    "annotation with a manifest": annotation(
        "kubectl.kubernetes.io/last-applied-configuration",
        json.dumps({"kind": "Secret", "data": {"a": encoded("hunter2")}}),
    ),
    "annotation with YAML": annotation("example.org/config", f"db:\n  password: {CANARY}\n"),
    "annotation with the registry's password": annotation("example.org/docker", REGISTRY),
    "annotation whose key is the secret": annotation(HUB, "x"),
    "label with a key": {"metadata": {"labels": {"team-token": CANARY}}},
    "node selector with a token": {"stages": {"spec": {"nodeSelector": {"pool": GITHUB}}}},
    "literal Secret as the overlay": {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "stringData": {"password": CANARY},
    },
    "literal Secret inside a pod": {
        "stages": {"spec": {"volumes": [{"name": "v", "stringData": {"a": CANARY}}]}}
    },
    "name of a Secret that is the secret": volume(secret={"secretName": "sk-" + "proj-abc123def456ghi789"}),
    "options of a volume": volume(flexVolume={"driver": "x/y", "options": {"password": CANARY}}),
    "attributes of a volume": volume(csi={"driver": "x.example", "volumeAttributes": {"accessKey": CANARY}}),
    "environment as a mapping of another field": {"spec": {"hostname": "sk-" + "abcdefghijklmnop"}},
    "image with a token": sidecar(image=f"https://{GITHUB}@registry.example/i:1"),
}

CLEAN: dict[str, Document] = {
    "references": stage(
        env=[
            {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "api-key"}}},
            {
                "name": "DB_PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": "db-password", "key": "password"}},
            },
        ],
        envFrom=[{"secretRef": {"name": "team-secrets"}}],
    ),
    "a key's file": env("WANDB_API_KEY_FILE", "/var/run/secrets/wandb/api_key"),
    "a token's path": env("HF_TOKEN_PATH", "/var/run/secrets/hub/token"),
    "web identity": env(
        "AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
    ),
    "NCCL": env("NCCL_DEBUG", "INFO"),
    "NCCL topology": env("NCCL_SOCKET_IFNAME", "^docker0,lo"),
    "tokenizers": env("TOKENIZERS_PARALLELISM", "false"),
    "token limits": env("MAX_TOKENS", "4096"),
    "length of tokens": env("TOKEN_LIMIT", "4096"),
    "switch about a token": env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
    "author": env("GIT_AUTHOR", "Ada Lovelace"),
    "keyboard": env("MONKEY", "banana"),
    "CUDA": env("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True,max_split_size_mb:128"),
    "proxy without a password": env("HTTPS_PROXY", "http://proxy.example:3128"),
    "no proxy": env("NO_PROXY", "localhost,127.0.0.1,.svc,.cluster.local"),
    "index without a password": env("PIP_INDEX_URL", "https://pypi.example/simple"),
    "e-mail": env("OWNER", "team@example.org"),
    "date": env("SINCE", "2026-12-01T10:00:00Z"),
    "commit": env("GIT_COMMIT", "0b22e5a1c0ffee00112233445566778899aabbcc"),
    "uuid": env("CLUSTER", "123e4567-e89b-12d3-a456-426614174000"),
    "digest": env("DATA_DIGEST", "sha256:" + "3b" * 32),
    "role": annotation(
        "eks.amazonaws.com/role-arn", "arn:aws:iam::123456789012:role/MyTeamRoleForTrainingPodsV2Prod"
    ),
    "checksum": annotation("checksum/secret", "9f" * 32),
    "vault": annotation("vault.hashicorp.com/agent-inject-secret-db", "secret/data/team/db"),
    "vault switch": annotation("vault.hashicorp.com/agent-inject-token", "true"),
    "vault template": annotation(
        "vault.hashicorp.com/agent-inject-template-db",
        '{{- with secret "secret/data/db" -}}\nexport PASSWORD="{{ .Data.data.password }}"\n{{- end }}',
    ),
    "prometheus": annotation("prometheus.io/scrape", "true"),
    "prose": annotation(
        "example.org/description", "Basic training-2026 of the tokenizer; key: nvidia.com/gpu"
    ),
    "JSON": annotation("k8s.v1.cni.cncf.io/networks", '[{"name": "rdma", "namespace": "net", "key": "a"}]'),
    "affinity": {
        "stages": {
            "spec": {
                "tolerations": [{"key": "team", "operator": "Equal", "value": "research"}],
                "topologySpreadConstraints": [
                    {
                        "topologyKey": "kubernetes.io/hostname",
                        "maxSkew": 1,
                        "whenUnsatisfiable": "ScheduleAnyway",
                    }
                ],
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "gpu", "operator": "In", "values": ["a40", "h100"]}
                                    ]
                                }
                            ]
                        }
                    }
                },
                "nodeSelector": {
                    "topology.kubernetes.io/zone": "eu-west-1a",
                    "nvidia.com/gpu.product": "NVIDIA-A40",
                },
            }
        }
    },
    "pull secrets": {"spec": {"imagePullSecrets": [{"name": "registry-token"}]}},
    "secret volume": volume(
        secret={"secretName": "team-api-key", "items": [{"key": "token", "path": "token"}]}
    ),
    "service account token": volume(
        projected={"sources": [{"serviceAccountToken": {"path": "token", "audience": "sts.amazonaws.com"}}]}
    ),
    "csi secret store": volume(
        csi={
            "driver": "secrets-store.csi.k8s.io",
            "readOnly": True,
            "volumeAttributes": {"secretProviderClass": "team-vault"},
            "nodePublishSecretRef": {"name": "vault-login"},
        }
    ),
    "arguments": sidecar(args=["--token-file=/run/token", "--api-key", "$(API_KEY)", "--log-level=debug"]),
    "command": sidecar(command=["sh", "-c", 'curl -H "Authorization: Bearer $TOKEN" "$URL?token=$TOKEN"']),
    "image by digest": sidecar(image="registry.example/token-tools/cli@sha256:" + "ab" * 32),
    "resources": stage(
        resources={"requests": {"memory": "24Gi", "cpu": "500m"}, "limits": {"memory": "24Gi"}}
    ),
    "labels": {"metadata": {"labels": {"team": "token-research", "cost-center": "cc-1234"}}},
    "host aliases": {"spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["s3.local"]}]}},
    "priority": {"spec": {"priorityClassName": "batch", "schedulerName": "gpu-scheduler"}},
}

SITE: Document = {
    "format": 1,
    "namespace": "tuning",
    "store": {"outside": "/data/store", "inside": "s3://runs/tuneyard?region=eu-west-1"},
    "images": {n: f"registry.example/{n}@sha256:{'a' * 64}" for n in ("trainer", "worker", "conductor")},
    "secrets": {
        "store_access_key": {"secret": "store", "key": "access"},
        "store_secret_key": {"secret": "store", "key": "secret"},
        "hub_token": {"secret": "hub-token", "key": "token"},
        "openai_api_key": {"secret": "openai", "key": "api-key"},
    },
    "pull_secrets": ["registry-token"],
}
SITES: dict[str, Document] = {
    "store address with keys": {"store": {"inside": f"s3://AKIA:{CANARY}@runs/tuneyard"}},
    "store address with a key in its query": {"store": {"inside": f"s3://runs/t?secret_access_key={CANARY}"}},
    "token as the name of a Secret": {
        "secrets": {"hub_token": {"secret": "sk-" + "abc123def456ghi7", "key": "token"}}
    },
    "token as the key of a Secret": {"secrets": {"hub_token": {"secret": "hub", "key": HUB}}},
    "provider with a password": {
        "provider_urls": [{"provider": "openai", "url": f"https://me:{CANARY}@llm.example/v1"}]
    },
    "provider with a key": {
        "provider_urls": [{"provider": "openai", "url": f"https://llm.example/v1?api_key={CANARY}"}]
    },
    "pull secret that is a token": {"pull_secrets": [GITLAB.lower()]},
}


class Rendering:
    """`launcher render` in this process, with a site file and an overlay."""

    def __init__(
        self, directory: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.directory, self.patch, self.capture = directory, patch, capture

    def __call__(self, overlay: Document | None = None, site: Document = SITE) -> tuple[int, str, str]:
        (self.directory / "site.yaml").write_text(yaml.safe_dump(site))
        words = [
            "launcher",
            "render",
            "sql",
            "--profile",
            "smoke",
            "--site",
            str(self.directory / "site.yaml"),
        ]
        if overlay is not None:
            (self.directory / "overlay.yaml").write_text(yaml.safe_dump(overlay))
            words += ["--overlay", str(self.directory / "overlay.yaml")]
        self.patch.setattr(sys, "argv", words)
        code = main()
        return code, *self.capture.readouterr()


@pytest.fixture
def render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rendering:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Rendering(tmp_path, monkeypatch, capsys)


def test_the_table_has_the_ways_that_were_found() -> None:
    assert len(WAYS) >= 44


@pytest.mark.parametrize("way", WAYS)
def test_literal_secret_in_an_overlay_is_refused(render: Rendering, way: str) -> None:
    code, out, err = render(WAYS[way])
    assert CANARY not in out + err
    assert out == ""
    assert code == 10
    assert re.search("secretKeyRef|name it here", err), err


@pytest.mark.parametrize("name", CLEAN)
def test_ordinary_overlay_is_accepted(render: Rendering, name: str) -> None:
    code, out, err = render(CLEAN[name])
    assert (code, err) == (0, "")
    assert "kind: ConfigMap" in out


@pytest.mark.parametrize("name", SITES)
def test_literal_secret_in_a_site_file_is_refused(render: Rendering, name: str) -> None:
    code, out, err = render(site={**SITE, **SITES[name]})
    assert CANARY not in out + err
    assert CANARY.lower() not in out + err
    assert (code, out) == (10, "")
    assert "create a Secret in the cluster" in err


def test_site_file_that_names_secrets_is_accepted(render: Rendering) -> None:
    code, _, err = render()
    assert (code, err) == (0, "")


def test_every_secret_is_listed_with_its_path(render: Rendering) -> None:
    overlay = {
        "metadata": {"annotations": {"a": HUB}},
        "conductor": {"spec": {"containers": [{"name": "conductor", "args": ["--token", CANARY]}]}},
        "kinds": {"score": env("DB_PASSWORD", CANARY)["stages"]},
        "bogus": 1,
        GITHUB: 2,
    }
    code, _, err = render(overlay)
    assert code == 10
    assert CANARY not in err
    for path in (
        "metadata.annotations.a: contains an access token",
        "conductor.spec.containers[0].args[1]: the value of --token looks like a secret",
        "kinds.score.spec.containers[0].env[0]: looks like a secret as a plain value",
        "bogus: not one of",
    ):
        assert path in err


def test_chart_values_from_a_site_without_a_file_are_checked() -> None:
    from launcher.manifests.render import render as render_plan
    from launcher.outcome import Failure
    from launcher.resolve.resolver import resolve
    from launcher.spec.loading import load
    from launcher.spec.planner import plan
    from launcher.spec.site import Site

    made = resolve(load("sql", profile="smoke"))
    site = Site.model_validate({**SITE, "pull_secrets": [GITLAB.lower()]})
    with pytest.raises(Failure) as caught:
        render_plan(plan(made.experiment, made.lock), site)
    assert caught.value.problems == (
        "imagePullSecrets[0]: contains an access token; use valueFrom.secretKeyRef, or mount the Secret",
    )
