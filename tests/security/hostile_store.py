"""A directory store as its owner can write one: real plans, edited by hand. Uses files and the command line only."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from launching import Launcher


def canonical(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class HostileStore:
    """Writes runs into the launcher's store."""

    def __init__(self, launcher: Launcher) -> None:
        self.root = launcher.store
        self._launcher = launcher

    def plan(self, *arguments: str) -> dict[str, Any]:
        """A valid plan, as `launcher plan` prints it."""
        plan: dict[str, Any] = self._launcher.json("plan", *arguments, "-o", "json")["plan"]
        return plan

    def sign(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Make keys and run id fit a plan that was edited: they are no secret."""
        keys: dict[str, str] = {}
        for stage in plan["stages"]:
            content = {
                "kind": stage["kind"],
                "version": stage["version"],
                "settings": stage["settings"],
                "inputs": stage["inputs"],
                "upstream": {role: keys[name] for role, name in stage["needs"].items()},
            }
            stage["key"] = keys[stage["name"]] = digest(canonical(content))
        plan["run_id"] = (
            f"{plan['experiment']['name']}-{digest(canonical(sorted(s['key'] for s in plan['stages'])))[:8]}"
        )
        return plan

    def write(self, path: str, value: Any) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())

    def add_run(self, plan: dict[str, Any], reason: str | None = "cancelled") -> str:
        """A run with one attempt, closed for `reason` or open."""
        run_id = str(plan["run_id"])
        self.write(f"runs/{run_id}/plan.json", plan)
        attempt = f"runs/{run_id}/attempts/1"
        self.write(f"{attempt}/plan.json", plan)
        self.write(
            f"{attempt}/request.json",
            {"format": 1, "target": "local", "opened_at": 1.0, "budget_usd": None, "gpu_hour_usd": []},
        )
        if reason is not None:
            failure = {"reason": reason, "what": "cancelled", "where": "", "problems": [], "next": ""}
            self.write(
                f"{attempt}/outcome.json",
                {"format": 1, "reason": reason, "ended_at": 2.0, "failure": failure, "stages": {}},
            )
        return run_id

    def add_artifact(self, key: str, files: dict[str, bytes], *, names: dict[str, str] | None = None) -> None:
        """A committed artifact with a manifest that is right to the byte; `names` lists files under other names."""
        for name, data in files.items():
            self.write(f"stages/{key}/{name}", data)
        content = {
            "format": 1,
            "files": {
                (names or {}).get(name, name): {"sha256": digest(data), "size_bytes": len(data)}
                for name, data in files.items()
            },
            "meta": {},
        }
        self.write(f"stages/{key}/_SUCCESS.json", {**content, "digest": digest(canonical(content))})
