"""Fixtures of several areas: an isolated environment, the real data beside the checkout, the launcher."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from isolation import isolate
from launching import Launcher, processes_naming

if TYPE_CHECKING:
    from launcher.spec.plan import Plan

ROOT = Path(__file__).parent.parent

# Before any test module is imported, because some read the environment then.
_HOMES = Path(tempfile.mkdtemp(prefix="tuneyard-test-homes-"))
atexit.register(shutil.rmtree, _HOMES, ignore_errors=True)
isolate(os.environ, _HOMES)
os.environ.setdefault("OMP_NUM_THREADS", "1")


RECORDED_KEYS = ROOT / "tests" / "data" / "stage_keys.json"
RECORD_KEYS = (
    "pytest --record-keys tests/tasks/test_built_in_keys.py tests/launcher/test_plan_is_pure.py "
    "tests/hosted/test_providers.py"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-keys",
        action="store_true",
        help="write run ids and stage keys to tests/data/stage_keys.json instead of comparing them (without -n)",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Send tests of one `xdist_group` to one worker.

    pytest-xdist 3.8 marks them in `Item._nodeid`, which pytest 9.2 no longer reads.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        groups = [mark.args[0] for mark in item.iter_markers("xdist_group")]
        if groups and not item.nodeid.endswith(f"@{groups[0]}"):
            item._id = type(item._id).parse(f"{item.nodeid}@{groups[0]}")  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def _no_process_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail if a process that works on the tests' files is still running at the end."""
    yield
    basetemp = tmp_path_factory.getbasetemp()
    deadline = time.monotonic() + 10
    while left := processes_naming(basetemp):
        if time.monotonic() > deadline:
            lines = "\n".join(f"{pid}: {command}" for pid, command in left.items())
            pytest.fail(f"the tests left processes behind:\n{lines}")
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _empty_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test an empty home directory, so that no test sees another's default store."""
    home = tempfile.mkdtemp(dir=_HOMES)
    monkeypatch.setenv("HOME", home)
    yield
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout, or the directory TUNEYARD_DATA; skips if there is none."""
    named = os.environ.get("TUNEYARD_DATA")
    directory = Path(named) if named else ROOT.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip(f"no data at {directory}: set TUNEYARD_DATA")
    return directory


@pytest.fixture
def check_recorded_keys(request: pytest.FixtureRequest) -> Callable[[str, Plan], None]:
    """Compare a plan's run id and stage keys with those recorded under a name."""

    def check(name: str, plan: Plan) -> None:
        recorded = json.loads(RECORDED_KEYS.read_bytes())
        found = {"run_id": plan.run_id, **{stage.name: stage.key for stage in plan.stages}}
        if request.config.getoption("record_keys"):
            text = json.dumps(dict(sorted({**recorded, name: found}.items())), indent=1)
            RECORDED_KEYS.write_text(text + "\n", encoding="ascii")
            return
        assert found == recorded.get(name), (
            "finished work is not found again under other keys; record them only with an intended change: "
            f"{RECORD_KEYS}"
        )

    return check


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """A launcher whose runs are cancelled and whose processes are gone when the test ends."""
    one = Launcher(tmp_path)
    yield one
    for process in one.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in one.processes():
        os.kill(pid, 9)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a condition, not for a time; fails with the condition's name if it never holds."""

    def wait(condition: Callable[[], object], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s} s: {condition.__qualname__}")
            time.sleep(0.02)

    return wait
