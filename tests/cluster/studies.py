"""A user of the launcher with a namespace, a bucket prefix and the project's images."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import Launcher

from launcher.manifests import overlay
from launcher.store import Store, open_store

from .node import S3
from .pods import Namespace
from .processes import ClusterError, wait_for

#: A whole run of the smoke profile takes about a minute and a half here; the machine may be very busy.
RUN_LIMIT_S = 1200.0
SMOKE = ("submit", "sql", "--profile", "smoke")
#: A stage asks for most of a core. With less, several runs share two cores instead of waiting for each other.
_LEAN = {"stages": {"spec": {"containers": [{"name": "stage", "resources": {"requests": {"cpu": "100m"}}}]}}}


@dataclass
class ClusterUser(Launcher):
    """The launcher with a kubeconfig, the store's keys and a site file."""

    namespace: Namespace | None = None
    kubeconfig: Path = Path()
    s3: S3 | None = None
    #: Merged over the template of every pod; None submits what a user without an overlay does.
    overlay: dict[str, Any] | None = field(default_factory=lambda: dict(_LEAN))

    def command(self, *arguments: str) -> list[str]:
        """The command line, with the overlay if the verb starts pods."""
        words = super().command(*arguments)
        if self.overlay is None or arguments[0] not in ("submit", "retry") or "local" in arguments:
            return words
        path = self.home / "overlay.yaml"
        path.write_text(yaml.safe_dump(self.overlay))
        return [*words, "--overlay", str(path)]

    def add_overlay(self, patch: dict[str, Any]) -> None:
        self.overlay = overlay.merge(self.overlay or {}, patch)

    @property
    def environment(self) -> dict[str, str]:
        assert self.s3 is not None
        mine = super().environment
        del mine["TUNEYARD_STORE"]
        return {
            **mine,
            "KUBECONFIG": str(self.kubeconfig),
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
        }

    @property
    def space(self) -> Namespace:
        assert self.namespace is not None
        return self.namespace

    @property
    def site(self) -> Path:
        return self.home / ".config" / "tuneyard" / "site.yaml"

    @property
    def images(self) -> dict[str, str]:
        """What the site file names."""
        return dict(yaml.safe_load(self.site.read_text())["images"])

    def prepare(self, images: dict[str, str], **more: Any) -> None:
        """Write the site file and the Secret that it names."""
        assert self.s3 is not None
        keys = {"access_key": self.s3.access_key, "secret_key": self.s3.secret_key}
        self.space.create(
            "secrets",
            {
                "metadata": {"name": "store"},
                "data": {name: base64.b64encode(text.encode()).decode() for name, text in keys.items()},
            },
        )
        address = (
            f"s3://{self.s3.bucket}/{self.space.name}"
            f"?endpoint_url={self.s3.address}&region=us-east-1&allow_http=true"
        )
        site = {
            "format": 1,
            "namespace": self.space.name,
            "store": {"outside": address, "inside": address},
            "images": images,
            "secrets": {
                "store_access_key": {"secret": "store", "key": "access_key"},
                "store_secret_key": {"secret": "store", "key": "secret_key"},
            },
            **more,
        }
        self.site.parent.mkdir(parents=True)
        self.site.write_text(yaml.safe_dump(site))

    # -- objects in the cluster -------------------------------------------------------------
    def objects(self, kind: str, group: str = "api/v1", labels: str = "") -> list[dict[str, Any]]:
        path = f"/{group}/namespaces/{self.space.name}/{kind}"
        found: list[dict[str, Any]] = self.space.api.get(
            path + (f"?labelSelector={labels}" if labels else "")
        )["items"]
        return found

    def jobs(self, labels: str = "") -> list[dict[str, Any]]:
        return self.objects("jobs", "apis/batch/v1", labels)

    def pods(self, labels: str = "") -> list[dict[str, Any]]:
        return self.objects("pods", labels=labels)

    def stage_pods(self, stage: str = "", attempt: int = 0) -> list[dict[str, Any]]:
        wanted = ["app.kubernetes.io/component=stage"]
        wanted += [f"tuneyard.dev/stage={stage}"] if stage else []
        wanted += [f"tuneyard.dev/attempt={attempt}"] if attempt else []
        return self.pods(",".join(wanted))

    def live_pods(self) -> list[str]:
        """Stage pods that have not ended."""
        return [
            pod["metadata"]["name"]
            for pod in self.stage_pods()
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
        ]

    def live_conductors(self) -> list[str]:
        """The conductor's pods that have not ended."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods("app.kubernetes.io/component=conductor")
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
        ]

    def delete_run(self) -> None:
        """Delete the conductor's Jobs, as pruning the run's files does, and wait until nothing of it is left."""
        for job in self.jobs("app.kubernetes.io/component=conductor"):
            path = f"/apis/batch/v1/namespaces/{self.space.name}/jobs/{job['metadata']['name']}"
            self.space.api.request("DELETE", path, {"propagationPolicy": "Background"})

        def left() -> list[str]:
            found = [f"job {one['metadata']['name']}" for one in self.jobs()]
            found += [f"pod {one['metadata']['name']}" for one in self.pods()]
            for kind in ("configmaps", "services", "serviceaccounts"):
                labelled = self.objects(kind, labels="app.kubernetes.io/name=tuneyard")
                found += [f"{kind} {one['metadata']['name']}" for one in labelled]
            policies = self.objects(
                "networkpolicies", "apis/networking.k8s.io/v1", "app.kubernetes.io/name=tuneyard"
            )
            found += [f"networkpolicy {one['metadata']['name']}" for one in policies]
            for kind in ("roles", "rolebindings"):
                group = "apis/rbac.authorization.k8s.io/v1"
                labelled = self.objects(kind, group, "app.kubernetes.io/name=tuneyard")
                found += [f"{kind} {one['metadata']['name']}" for one in labelled]
            return found

        wait_for("nothing is left of the run", lambda: not left(), 120)

    def forget(self, run_id: str) -> None:
        """Delete the run and change the store, so that the same run starts from the beginning."""
        self.delete_run()
        self.site.write_text(self.site.read_text().replace(f"/{self.space.name}?", f"/{self.space.name}-2?"))

    def open_store(self, monkeypatch: pytest.MonkeyPatch) -> Store:
        """The run's store, read in this process."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, self.environment[name])
        return open_store(yaml.safe_load(self.site.read_text())["store"]["outside"])

    def has_run(self, pod: str, seconds: float) -> bool:
        """Whether a pod's program has run for `seconds`; the API reports whole seconds."""
        [status] = self.space.pod(pod)["status"]["containerStatuses"]
        started = (status["state"].get("running") or status["state"]["terminated"])["startedAt"]
        return datetime.now(UTC) - datetime.fromisoformat(started) > timedelta(seconds=seconds)

    def running_pod(self, stage: str, timeout_s: float = RUN_LIMIT_S / 3) -> str:
        """The name of a pod of `stage` whose program has started; waits for one."""
        found: list[str] = []

        def started() -> bool:
            found[:] = [
                pod["metadata"]["name"]
                for pod in self.pods(f"tuneyard.dev/stage={stage}")
                if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
            ]
            return bool(found)

        wait_for(f"a running pod of {stage}", started, timeout_s)
        return found[0]

    def conductor_pod(self, timeout_s: float = 120) -> str:
        found: list[str] = []

        def started() -> bool:
            found[:] = [
                pod["metadata"]["name"]
                for pod in self.pods("app.kubernetes.io/component=conductor")
                if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
            ]
            return bool(found)

        wait_for("a running conductor", started, timeout_s)
        return found[0]

    def finish(self, process: subprocess.Popen[str], timeout_s: float = RUN_LIMIT_S) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of something started in the background."""
        out, err = process.communicate(timeout=timeout_s)
        return process.returncode, out, err

    def verdict(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        code, out, err = self.finish(process)
        assert code == 0, f"{err}\n{self.describe()}"
        verdict: dict[str, Any] = json.loads(out)
        return verdict

    def await_output(self, what: str, pattern: str, *words: str, timeout_s: float = 300) -> str:
        """Run the launcher until its output matches `pattern` (`^`: start of a line); returns that output."""
        said = ""

        def matches() -> bool:
            nonlocal said
            said = self(*words).stdout
            return re.search(pattern, said, re.MULTILINE) is not None

        try:
            wait_for(what, matches, timeout_s, every_s=1)
        except ClusterError as error:
            raise ClusterError(f"{error}; {' '.join(words)} last said: {said}\n{self.describe()}") from None
        return said

    def describe(self) -> str:
        """Pod states and the conductor's log, for the message of a failed test."""
        lines = []
        for pod in self.pods():
            lines.append(f"{pod['metadata']['name']}: {json.dumps(pod['status'])[:1500]}")
        for pod in self.pods("app.kubernetes.io/component=conductor"):
            try:
                lines.append(self.space.log(pod["metadata"]["name"])[-3000:])
            except Exception as error:
                lines.append(f"no log: {error}")
        return "\n".join(lines)


MakeUser = Callable[..., ClusterUser]
