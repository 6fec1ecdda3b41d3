"""The rehearsal server protects its state: one server per directory, private files, a disk that fills up."""

from __future__ import annotations

import json
import resource
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hosted"))
from serving import MODEL, Server, upload_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, {"sk-one": "one"})
    server.start()
    yield server
    server.kill()


def await_condition(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_second_server_on_one_state_directory_is_refused(server: Server) -> None:
    assert server.process is not None
    second = subprocess.run(
        [
            *(sys.executable, "-m", "jobs", "rehearse", "--state", str(server.root / "state"), "--port", "1"),
            *("--model", f"{MODEL}={server.root / 'model'}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 2
    assert f"another server uses this state directory: process {server.process.pid}" in second.stderr


def test_state_is_readable_by_its_user_only(server: Server) -> None:
    server.client().files.create(file=("rows.jsonl", upload_of(12)), purpose="fine-tune")
    state = server.root / "state"
    modes = {
        path.relative_to(state).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*")
    }
    assert len(modes) > 3
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_trainer_goes_on_after_a_full_disk(server: Server) -> None:
    client = server.client()
    slow = client.files.create(file=("rows.jsonl", upload_of(64, "slowly")), purpose="fine-tune")
    file = client.files.create(file=("rows.jsonl", upload_of(12)), purpose="fine-tune")
    first = client.fine_tuning.jobs.create(model=MODEL, training_file=slow.id)
    pid = server.process.pid if server.process is not None else 0
    children = Path(f"/proc/{pid}/task/{pid}/children")
    await_condition(lambda: client.fine_tuning.jobs.retrieve(first.id).status == "running", "not running")
    # No write of the server succeeds under this limit, as on a full disk.
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    await_condition(lambda: not children.read_text().split(), "the training process did not end")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    await_condition(
        lambda: client.fine_tuning.jobs.retrieve(first.id).status != "running", "running without a process"
    )
    failed = client.fine_tuning.jobs.retrieve(first.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert "could not write to its state directory" in str(failed.error.message)
    second = client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
    await_condition(
        lambda: client.fine_tuning.jobs.retrieve(second.id).status == "succeeded",
        "the next job did not train",
    )


def test_first_page_of_jobs_takes_the_same_time_with_many_jobs(server: Server) -> None:
    client = server.client()
    file = client.files.create(file=("rows.jsonl", upload_of(12)), purpose="fine-tune")
    ids = [client.fine_tuning.jobs.create(model=MODEL, training_file=file.id).id for _ in range(25)]
    await_condition(
        lambda: all(job.status == "succeeded" for job in client.fine_tuning.jobs.list(limit=50)),
        "not trained",
    )

    def page_s() -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            assert len(client.fine_tuning.jobs.list(limit=20).data) == 20
            times.append(time.perf_counter() - start)
        return min(times)

    few_s = page_s()
    add_copies(server.root / "state" / "rehearsal.sqlite", ids[0], 20_000)
    many_s = page_s()
    print(f"a page of 20 jobs: {few_s:.4f} s of 25, {many_s:.4f} s of 20,025")
    assert many_s < 10 * few_s


def add_copies(database: Path, job: str, count: int) -> None:
    """Add copies of a job to the database of a server."""
    connection = sqlite3.connect(database, timeout=30)
    with connection:
        tenant, owner, body = connection.execute(
            "SELECT tenant, owner, body FROM objects WHERE id = ?", (job,)
        ).fetchone()
        copies = [{**json.loads(body), "id": f"ftjob-copy{number}"} for number in range(count)]
        connection.executemany(
            "INSERT INTO objects (kind, id, tenant, owner, body) VALUES ('job', ?, ?, ?, ?)",
            [(copy["id"], tenant, owner, json.dumps(copy)) for copy in copies],
        )
    connection.close()
