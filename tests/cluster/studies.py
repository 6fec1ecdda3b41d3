"""A user of the launcher with a namespace, a bucket's prefix and the project's images: runs as people start them."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import Launcher

from launcher.store import Store, open_store

from .node import S3
from .pods import Namespace
from .processes import ClusterError, wait_for

#: A whole run of the smoke profile takes about a minute and a half here; the machine may be very busy.
RUN_LIMIT_S = 1200.0
SMOKE = ("submit", "sql", "--profile", "smoke")


@dataclass
class ClusterUser(Launcher):
    """The launcher with a kubeconfig, the store's keys and a site file."""

    namespace: Namespace | None = None
    kubeconfig: Path = Path()
    s3: S3 | None = None

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

    # -- what is in the cluster -----------------------------------------------------------
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
        """Delete the conductor's Jobs, as pruning a run's files would, and see that nothing is left of it."""
        for job in self.jobs("app.kubernetes.io/component=conductor"):
            path = f"/apis/batch/v1/namespaces/{self.space.name}/jobs/{job['metadata']['name']}"
            self.space.api.request("DELETE", path, {"propagationPolicy": "Background"})

        def left() -> list[str]:
            found = [f"job {one['metadata']['name']}" for one in self.jobs()]
            found += [f"pod {one['metadata']['name']}" for one in self.pods()]
            for kind in ("configmaps", "services", "serviceaccounts"):
                labelled = self.objects(kind, labels="app.kubernetes.io/name=tuneyard")
                found += [f"{kind} {one['metadata']['name']}" for one in labelled]
            for kind in ("roles", "rolebindings"):
                group = "apis/rbac.authorization.k8s.io/v1"
                labelled = self.objects(kind, group, "app.kubernetes.io/name=tuneyard")
                found += [f"{kind} {one['metadata']['name']}" for one in labelled]
            return found

        wait_for("nothing is left of the run", lambda: not left(), 120)

    def forget(self, run_id: str) -> None:
        """Another store and nothing in the cluster: the same run would start from nothing."""
        self.delete_run()
        self.site.write_text(self.site.read_text().replace(f"/{self.space.name}?", f"/{self.space.name}-2?"))

    def open_store(self, monkeypatch: pytest.MonkeyPatch) -> Store:
        """The run's store, read in this process."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, self.environment[name])
        return open_store(yaml.safe_load(self.site.read_text())["store"]["outside"])

    def has_run(self, pod: str, seconds: float) -> bool:
        """Whether a pod's program has run for so long: the API counts in whole seconds."""
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

    def await_said(self, what: str, pattern: str, *words: str, timeout_s: float = 300) -> str:
        """Ask the launcher until what it prints has `pattern` (`^`: a line begins); what it then printed."""
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
        """What a person would look at first when a run went wrong."""
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
