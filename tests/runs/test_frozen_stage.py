"""A stage process that is stopped in the middle of its work is ended and tried again, on this machine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from launching import Launcher

STAGE = "train-lora-s1"
#: Far above the interval of heartbeats, far below the wait for the end.
LIMIT_S = "8"

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("runs")]


def stored(launcher: Launcher, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(launcher.store.glob(pattern))]


def process_of(launcher: Launcher) -> int | None:
    found = [pid for pid, command in launcher.processes().items() if f"--stage {STAGE}" in command]
    return found[0] if found else None


def is_under_way(launcher: Launcher) -> bool:
    beats = stored(launcher, f"runs/*/attempts/1/heartbeats/{STAGE}.json")
    return bool(beats) and beats[0]["eta_s"] is not None and beats[0]["step"] < beats[0]["total"]


def test_stopped_process_is_ended_and_tried_again(
    launcher: Launcher, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fixture's launchers drop variables of ours, so that a developer's own do not reach tests.
    environment = {**launcher.environment, "TUNEYARD_HEARTBEAT_LIMIT_S": LIMIT_S}
    monkeypatch.setattr(Launcher, "environment", property(lambda _: environment))
    steps = "contenders[lora].training.steps=2000"
    launcher.start("submit", "sql", "--profile", "smoke", "--target", "local", "--set", steps)
    wait_until(lambda: is_under_way(launcher), timeout_s=120)
    frozen = process_of(launcher)
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: process_of(launcher) not in (None, frozen), timeout_s=60)
    finally:
        if process_of(launcher) == frozen:
            os.kill(frozen, signal.SIGCONT)
    ends = stored(launcher, f"runs/*/attempts/1/ends/{STAGE}-t*.json")
    assert [end["reason"] for end in ends] == ["no-heartbeat"]
