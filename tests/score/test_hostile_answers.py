"""Hostile answers: no escape, no changed file, no other job lost, bounded time and memory."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_answers import HOSTILE
from small_sql_data import QUESTIONS, SqlData

from jobs.measures.cache import Cache
from jobs.tasks.sql.execution.query_runner import QueryLimits
from jobs.tasks.sql.execution.records import ExplainJob, GoldEntry, JudgeJob, Verdict
from jobs.tasks.sql.execution.worker import MEMORY_BYTES
from jobs.tasks.sql.execution.worker_pool import LostJob, WorkerPool
from jobs.tasks.sql.judging import explain, judge_job, prepare_jobs, score

#: A small fraction of the default limits, to keep the suite fast.
LIMITS = QueryLimits(steps=500_000, cpu_s=0.1, rows=20_000, content_bytes=4 << 20)


def contents(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def children_peak_kib() -> Iterator[dict[str, int]]:
    """Most memory in KiB that each child of this process had resident, by process id, read every 20 ms.

    Not `ru_maxrss`: it starts at what the parent had resident when it forked.
    """
    found: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for task in Path("/proc/self/task").iterdir():
                with suppress(OSError):
                    for child in (task / "children").read_text().split():
                        status = Path("/proc", child, "status").read_text()
                        if "VmHWM:" in status and Path("/proc", child, "cmdline").read_bytes() != own:
                            found[child] = int(status.split("VmHWM:")[1].split()[0])

    own = Path("/proc/self/cmdline").read_bytes()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def test_hostile_answers_are_at_least_300() -> None:
    assert len(set(HOSTILE)) >= 300


def test_hostile_answers_are_wrong_and_harm_nothing(
    sql_data: SqlData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    for directory in (work, temporary):
        directory.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("SQLITE_TMPDIR", str(temporary))
    before = contents(sql_data.directory)
    first, gold = sql_data.rows[0], QUESTIONS[0][1]
    answers = [text for hostile in HOSTILE for text in (hostile, gold)]
    started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with children_peak_kib() as peak_kib:
        found = score([first] * len(answers), answers, sql_data.directory, workers=2, limits=LIMITS).rows
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN)
    for row, answer in zip(found[::2], HOSTILE, strict=True):
        assert not row.scores["strict"], answer[:200]
        assert not row.scores["official"], answer[:200]
        assert row.reason, answer[:200]
    assert all(row.scores["strict"] and row.reason is None for row in found[1::2])
    assert contents(sql_data.directory) == before
    assert contents(work) == contents(temporary) == {}
    assert peak.ru_utime + peak.ru_stime - used.ru_utime - used.ru_stime < len(HOSTILE)
    assert seconds < 2 * len(HOSTILE)
    assert len(peak_kib) >= 2
    assert max(peak_kib.values()) <= MEMORY_BYTES >> 10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("DROP TABLE singer", "refused"),
        ("ATTACH 'x' AS x", "refused"),
        ("PRAGMA query_only=OFF", "refused"),
        ("SELECT load_extension('x')", "refused"),
        ("SELECT random() FROM singer", "refused"),
        ("VACUUM INTO 'x'", "refused"),
        ("SELECT zeroblob(1000000000)", "too large"),
        (
            "SELECT hex(zeroblob(100000)) FROM singer a, singer b, singer c, singer d, singer e, singer f",
            "too large",
        ),
        (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
            "too slow",
        ),
        ("SELECT " + "(" * 1_000_000, "too large: the answer has more than"),
        ("SELECT 7\0", "not text"),
        ("", "empty"),
    ],
)
def test_reason_of_refused_answers(sql_data: SqlData, answer: str, reason: str) -> None:
    (found,) = score([sql_data.rows[0]], [answer], sql_data.directory, workers=1, limits=LIMITS).rows
    assert found.reason is not None
    assert found.reason.startswith(reason)


def test_right_answer_that_cannot_be_parsed_in_time_is_right(sql_data: SqlData) -> None:
    answer = QUESTIONS[0][1] + " JOIN (SELECT 1)" * 40
    (found,) = score([sql_data.rows[0]], [answer], sql_data.directory, workers=1).rows
    assert found.reason is None
    assert found.scores == {"exact": False, "exact_normalised": False, "strict": True, "official": True}
    shown = explain(
        sql_data.rows[0], answer.replace("count(*)", "count(*) + 1"), sql_data.directory, Cache(None)
    )
    assert shown["proof"]["answer"]["rows"] != shown["proof"]["gold"]["rows"]


def test_second_statement_is_never_run(sql_data: SqlData) -> None:
    before = contents(sql_data.directory)
    found = sql_data.one(0, "SELECT count(*) FROM singer; DROP TABLE singer")
    assert found.scores["strict"]
    assert contents(sql_data.directory) == before


#: Each call of instr() takes long, and the limits are checked every 5,000 steps: minutes pass between checks.
UNSTOPPABLE = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT sum(instr(hex(zeroblob(49000)), hex(zeroblob(24000)) || i)) FROM n"
)


def spinning(sql_data: SqlData, cpu_s: float) -> tuple[JudgeJob, JudgeJob]:
    """A job that the progress handler does not stop in time, and an ordinary one."""
    with WorkerPool(1) as pool:
        (job,) = prepare_jobs([sql_data.rows[0]], sql_data.directory)
        (gold,) = pool.map([job])
    assert isinstance(gold, GoldEntry)
    bomb = judge_job(gold, UNSTOPPABLE, job.database, QueryLimits(cpu_s=cpu_s))
    return bomb, judge_job(gold, QUESTIONS[0][1], job.database)


def test_cpu_limit_kills_the_worker_and_loses_one_job(sql_data: SqlData) -> None:
    bomb, ordinary = spinning(sql_data, cpu_s=0.1)
    with WorkerPool(2) as pool:
        results = pool.map([ordinary, bomb, ordinary, ordinary], batch=4)
    assert [isinstance(result, LostJob) for result in results] == [False, True, False, False]
    assert results[1] == LostJob("too slow: killed at the CPU limit")
    assert all(result.strict for result in results if isinstance(result, Verdict))


def test_wall_limit_kills_the_worker(sql_data: SqlData) -> None:
    bomb, ordinary = spinning(sql_data, cpu_s=10_000.0)
    with WorkerPool(1, wall_s=15.0) as pool:  # includes the start of a worker, on a busy machine
        results = pool.map([bomb, ordinary])
    assert results[0] == LostJob("too slow: killed at the time limit")
    assert isinstance(results[1], Verdict)
    assert results[1].strict


def test_batches_larger_than_a_pipe_do_not_deadlock(sql_data: SqlData) -> None:
    (job,) = prepare_jobs([sql_data.rows[0]], sql_data.directory)
    with WorkerPool(1) as pool:
        (gold,) = pool.map([job])
        # Batches of 500 kilobytes one way and of 100 the other, where a pipe holds 64.
        columns = ", ".join(f'{number} AS "{"n" * 50}{number}"' for number in range(30))
        assert isinstance(gold, GoldEntry)
        assert gold.reference is not None
        wanted = ExplainJob(gold.reference, f"SELECT {columns}", job.database, LIMITS)
        jobs = [replace(wanted, answer=wanted.answer + " " * 5_000) for _ in range(160)]
        results = pool.map(jobs, batch=40)
    assert len(results) == 160
    assert all(result == results[0] for result in results)
    assert len(str(results[0])) > 2_000


def test_worker_has_no_environment_and_file_size_limit_zero(
    sql_data: SqlData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hush")
    with WorkerPool(1) as pool:
        pool.map(prepare_jobs([sql_data.rows[0]], sql_data.directory))
        pid = pool.pids()[0]
        proc = Path(f"/proc/{pid}")
        assert b"hush" not in (proc / "environ").read_bytes()
        limits = (proc / "limits").read_text()
        assert "Max file size             0 " in limits
        assert "Max core file size        0 " in limits
        assert os.readlink(proc / "cwd") == "/"
    assert not proc.exists()


def test_workers_die_with_a_killed_parent(wait_until) -> None:  # type: ignore[no-untyped-def]
    program = (
        "import time\nfrom jobs.tasks.sql.execution.worker_pool import WorkerPool\n"
        "from jobs.tasks.sql.execution.records import PrepareJob\n"
        "job = PrepareJob('SELECT 1', None, '', '', seed=0)\n"
        "pool = WorkerPool(1)\npool.map([job])\nprint(pool.pids()[0], flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
