"""Kill anything with -9 at any moment, submit again, and the run ends with the same results digest.

Whole runs of the smoke profile as subprocesses: real stages, real signals.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import STAGES, Launcher

SMOKE = ("submit", "sql", "--profile", "smoke", "--target", "local")

# One worker of pytest-xdist runs them all: they share the undisturbed run, and each fills a core.
pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("runs")]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launcher, str]:
    """The launcher of a run without any fault, and what submit printed for it."""
    launcher = Launcher(tmp_path_factory.mktemp("undisturbed"))
    done = launcher(*SMOKE, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert not _processes_of(launcher, "--stage"), "a run left stages behind"
    return launcher, done.stdout


@pytest.fixture(scope="session")
def undisturbed(finished: tuple[Launcher, str]) -> dict[str, Any]:
    """The verdict of a run without any fault."""
    verdict: dict[str, Any] = json.loads(finished[1])
    return verdict


def _take_the_terminal() -> None:
    """In the child: the terminal is its own, and Ctrl-C means what it means to a person's shell.

    A test run that was started in the background hands down an ignored SIGINT.
    """
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _processes_of(launcher: Launcher, word: str) -> list[int]:
    return [pid for pid, command in launcher.processes().items() if word in command]


def _run_id(launcher: Launcher) -> str:
    return launcher("list", "-o", "name").stdout.strip()


def test_results_hold_the_whole_comparison(undisturbed: dict[str, Any]) -> None:
    results = undisturbed["results"]
    assert [contender["name"] for contender in results["contenders"]] == ["untuned", "lora"]
    assert results["comparisons"][0]["rows"] == results["data"]["valid_gold"] == 8
    assert all(
        measure["low"] <= measure["value"] <= measure["high"]
        for contender in results["contenders"]
        for measure in contender["measures"].values()
    )
    assert {line["stage"] for line in undisturbed["receipt"]["stages"]} == set(STAGES)
    assert all(line["seconds"] > 0 for line in undisturbed["receipt"]["stages"])


def test_kill_in_every_stage_keeps_the_digest(
    launcher: Launcher, wait_until: Callable[..., None], undisturbed: dict[str, Any]
) -> None:
    submit = launcher.start(*SMOKE, "-o", "json")
    killed: set[str] = set()

    def every_stage_was_killed() -> bool:
        for pid, command in launcher.processes().items():
            for stage in set(STAGES) - killed:
                if f"--stage {stage} " in command:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(stage)
        return killed == set(STAGES) or submit.poll() is not None

    wait_until(every_stage_was_killed, timeout_s=240)
    output, errors = submit.communicate(timeout=240)
    assert submit.returncode == 0, errors
    assert killed == set(STAGES)
    verdict = json.loads(output)
    assert verdict["results_digest"] == undisturbed["results_digest"]
    tries = {
        stage["name"]: len(stage["tries"])
        for stage in launcher.json("status", _run_id(launcher), "-o", "json")["stages"]
    }
    assert set(tries.values()) == {2}, tries
    wait_until(lambda: not launcher.processes(), timeout_s=5)


def test_run_continues_after_everything_is_killed(
    launcher: Launcher, wait_until: Callable[..., None], undisturbed: dict[str, Any]
) -> None:
    submit = launcher.start(*SMOKE)
    wait_until(
        lambda: list(launcher.store.glob("runs/*/work/train-lora-s1/*/step-*/_SUCCESS.json")), timeout_s=120
    )
    submit.kill()
    for pid in launcher.processes():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not launcher.processes())
    finished = {path.parent.name for path in launcher.store.glob("stages/*/_SUCCESS.json")}
    assert finished, "stages had finished before"
    verdict = launcher.json(*SMOKE, "-o", "json")
    assert verdict["results_digest"] == undisturbed["results_digest"]
    stages = launcher.json("status", _run_id(launcher), "-o", "json")["stages"]
    kept = [stage for stage in stages if stage["key"] in finished]
    assert all(len(stage["tries"]) == 1 for stage in kept), "a finished stage was run again"
    train = next(line for line in verdict["receipt"]["stages"] if line["stage"] == "train-lora-s1")
    assert train["seconds_lost"] > 0, "the receipt forgets what the kill cost"


def test_killed_conductor_is_replaced_while_submit_waits(
    launcher: Launcher, wait_until: Callable[..., None], undisturbed: dict[str, Any]
) -> None:
    submit = launcher.start(*SMOKE, "-o", "json")
    wait_until(lambda: _processes_of(launcher, "--stage"))
    (conductor,) = _processes_of(launcher, "launcher.targets.local")
    stages = _processes_of(launcher, "--stage")
    os.kill(conductor, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stages), timeout_s=10)
    output, errors = submit.communicate(timeout=240)
    assert submit.returncode == 0, errors
    assert json.loads(output)["results_digest"] == undisturbed["results_digest"]


def test_two_submits_at_once_are_one_run(launcher: Launcher, undisturbed: dict[str, Any]) -> None:
    both = [launcher.start(*SMOKE, "-o", "json") for _ in range(2)]
    verdicts = []
    for process in both:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        verdicts.append(json.loads(output))
    assert verdicts[0] == verdicts[1]
    assert verdicts[0]["results_digest"] == undisturbed["results_digest"]
    stages = launcher.json("status", _run_id(launcher), "-o", "json")["stages"]
    assert {stage["name"]: len(stage["tries"]) for stage in stages} == dict.fromkeys(STAGES, 1)


def test_retry_after_cancel_keeps_the_digest(
    launcher: Launcher, wait_until: Callable[..., None], undisturbed: dict[str, Any]
) -> None:
    run = launcher(*SMOKE, "-o", "name").stdout.strip()
    wait_until(lambda: _processes_of(launcher, "--stage train-lora-s1"), timeout_s=120)
    assert launcher("cancel", run).returncode == 0
    assert not _processes_of(launcher, "--stage"), "cancel left stages behind"
    wait_until(lambda: not launcher.processes(), timeout_s=5)
    again = launcher(*SMOKE)
    assert again.returncode == 25, "a cancelled run is not continued by submit"
    assert f"launcher retry {run}" in again.stderr
    verdict = launcher.json("retry", run, "-o", "json")
    assert verdict["results_digest"] == undisturbed["results_digest"]


@pytest.mark.parametrize("answer", ["s", "l"])
def test_ctrl_c_on_a_terminal_asks_whether_to_stop(
    answer: str, launcher: Launcher, wait_until: Callable[..., None]
) -> None:
    terminal, inside = pty.openpty()
    submit = subprocess.Popen(
        launcher.command(*SMOKE),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=launcher.environment,
        start_new_session=True,
        preexec_fn=_take_the_terminal,
    )
    launcher.started.append(submit)  # type: ignore[arg-type]
    os.close(inside)
    seen = bytearray()

    def shown(text: bytes) -> Callable[[], bool]:
        def is_shown() -> bool:
            seen.extend(os.read(terminal, 65536))
            return text in seen

        return is_shown

    wait_until(shown(b"running"))
    wait_until(lambda: _processes_of(launcher, "--stage"))
    os.write(terminal, b"\x03")
    wait_until(shown(b"[l]eave it running"))
    os.write(terminal, answer.encode() + b"\n")
    if answer == "l":
        wait_until(shown(b"left running"))
        submit.wait(timeout=30)
        assert submit.returncode == 130
        assert launcher.processes(), "the run was to go on"
        launcher("cancel", _run_id(launcher))
    else:
        wait_until(shown(b"cancelled"))
        submit.wait(timeout=60)
        assert submit.returncode == 25
    os.close(terminal)
    wait_until(lambda: not launcher.processes())


def test_finished_run_prints_its_verdict_at_once(finished: tuple[Launcher, str]) -> None:
    launcher, printed = finished
    assert launcher(*SMOKE, "-o", "json", timeout_s=20).stdout == printed
