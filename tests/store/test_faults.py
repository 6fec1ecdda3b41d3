"""Whatever the network and the server do: no wrong or partial artifact is read as good, nothing committed is lost,
every error is clear and in time.

Each sequence is a handful of operations by one or two writers through a proxy whose faults follow
from a seed. Afterwards a reader without faults, on a machine that has never read anything, compares
the store with the results that the writers got. `-m faults` runs all sequences, else a few are run;
TUNEYARD_FAULT_SEQUENCES says how many and TUNEYARD_FAULT_SEED where they begin.
"""

from __future__ import annotations

import os
import random
import shutil
import time
import types
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FAULTS, FaultProxy
from places import make_place
from s3_servers import Server

from launcher.outcome import Failure, Reason
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store

#: Two tries of a request, one second of silence: sequences shall end soon.
LIMITS: dict[str, float] = {
    "connect_timeout_s": 1,
    "read_timeout_s": 0.8,
    "call_timeout_s": 6,
    "patience_s": 6,
    "settle_s": 3.0,
    "part_bytes": 64 << 10,
    "small_file_bytes": 8 << 10,
    "pack_bytes": 32 << 10,
    "loose_files": 3,
    "parallel": 3,
}
#: No operation below makes more than this many calls one after the other.
_OPERATION_TIMEOUT_S = 120.0
#: Ends that a fault may have; anything else is a mistake of ours.
_EXPECTED = {
    Reason.NETWORK,
    Reason.STORE_FAILED,
    Reason.DISK_FULL,
    Reason.CORRUPT_ARTIFACT,
    Reason.MISSING_INPUT,
}


@dataclass
class Story:
    """The results that the writers of one sequence got, and the events."""

    seed: int
    #: prefix -> content that was committed for certain.
    committed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    #: prefix -> contents that may have been committed: the writer got an error.
    unknown: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    json_won: dict[str, Any] = field(default_factory=dict)
    json_tried: dict[str, list[Any]] = field(default_factory=dict)
    inputs: dict[str, bytes] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0


class Sequence:
    """One seed's operations against one server."""

    def __init__(self, seed: int, server: Server, bucket: str, directory: Path) -> None:
        self.chance = random.Random(seed)
        self.story = Story(seed)
        self.bucket, self.prefix, self.directory = bucket, f"s{seed}-{uuid.uuid4().hex[:6]}", directory
        self.server = server
        kinds = self.chance.sample(FAULTS, self.chance.choice((1, 2, 4, len(FAULTS))))
        rate = self.chance.choice((0.03, 0.1, 0.3))
        self.proxy = FaultProxy(server.port, seed, rate, tuple(kinds))

    def store(self, endpoint: str, machine: str, *, writable: bool = True) -> S3Store:
        address = S3Address(self.bucket, self.prefix, endpoint_url=endpoint).with_limits(**LIMITS)
        base = self.directory / machine
        return S3Store(address, writable=writable, state=base / "state", cache=base / "cache")

    def run(self) -> Story:
        with self.proxy:
            writers = [self._opened(f"writer-{number}") for number in range(2)]
            open_writers = [writer for writer in writers if writer is not None]
            for number in range(self.chance.randint(3, 5)):
                if open_writers:
                    self._step(number, open_writers)
        self._judge()
        return self.story

    def _opened(self, machine: str) -> S3Store | None:
        return self._timed("open", lambda: self.store(self.proxy.endpoint, machine))

    def _timed(self, name: str, call: Callable[[], Any]) -> Any:
        """The call's result, or None after a Failure, which must be clear and in time."""
        started = time.monotonic()
        try:
            result = call()
            self.story.outcomes[f"{name}: done"] += 1
            return result
        except Failure as failure:
            self.story.outcomes[f"{name}: {failure.reason.value}"] += 1
            self._check_clear(failure)
            return None
        finally:
            took_s = time.monotonic() - started
            self.story.longest_s = max(self.story.longest_s, took_s)
            assert took_s < _OPERATION_TIMEOUT_S, f"seed {self.story.seed}: {name} took {took_s:.0f} s"

    def _check_clear(self, failure: Failure) -> None:
        assert failure.reason in _EXPECTED, f"seed {self.story.seed}: {failure.reason} {failure.text()}"
        assert failure.what, "an error without words"
        assert failure.where, f"an error without a place: {failure.text()}"
        assert failure.next_step, f"an error without advice: {failure.text()}"

    # -- operations -----------------------------------------------------------------------
    def _step(self, number: int, writers: list[S3Store]) -> None:
        writer = self.chance.choice(writers)
        kind = self.chance.choice(("commit", "commit", "race", "json", "input", "read"))
        if kind == "commit":
            self._commit(writer, f"stages/k{number}", self._content())
        elif kind == "race":
            self._race(writers, f"stages/k{number}")
        elif kind == "json":
            path = f"runs/r/attempts/{self.chance.randint(1, 2)}/outcome.json"
            self._create(writer, path, {"by": number, "seed": self.story.seed})
        elif kind == "input":
            self._put_input(writer, number)
        elif self.story.committed:
            self._read(writer, self.chance.choice(sorted(self.story.committed)))

    def _content(self) -> dict[str, bytes]:
        chance = self.chance
        files = {f"f{n}": chance.randbytes(chance.randrange(3000)) for n in range(chance.randint(1, 9))}
        if chance.random() < 0.6:
            files["large"] = chance.randbytes(chance.randrange(60_000, 200_000))
        return files

    def _written(self, content: dict[str, bytes]) -> Path:
        directory = self.directory / f"d-{uuid.uuid4().hex[:8]}"
        directory.mkdir(parents=True)
        for name, data in content.items():
            (directory / name).write_bytes(data)
        return directory

    def _commit(self, writer: S3Store, prefix: str, content: dict[str, bytes]) -> None:
        meta = {"seed": self.story.seed}
        for _ in range(self.chance.choice((1, 3))):  # give up at once, or try again as a user would
            if self._timed("commit", lambda: writer.commit(prefix, self._written(content), meta)):
                self.story.committed[prefix] = content
                self.story.unknown.pop(prefix, None)
                return
        self.story.unknown.setdefault(prefix, []).append(content)

    def _race(self, writers: list[S3Store], prefix: str) -> None:
        contents = [self._content() for _ in writers]
        with ThreadPoolExecutor(len(writers)) as pool:
            outcomes = list(
                pool.map(
                    lambda pair: self._timed(
                        "race", lambda: pair[0].commit(prefix, self._written(pair[1]), {"seed": 0})
                    ),
                    zip(writers, contents, strict=True),
                )
            )
        winners = {frozenset((n, e.sha256) for n, e in m.files.items()) for m in outcomes if m is not None}
        assert len(winners) <= 1, f"seed {self.story.seed}: two writers both got success"
        self.story.unknown[prefix] = contents
        if winners:
            self.story.outcomes["race: decided"] += 1

    def _create(self, writer: S3Store, path: str, value: Any) -> None:
        self.story.json_tried.setdefault(path, []).append(value)
        won = self._timed("create", lambda: writer.put_json(path, value))
        if won:
            assert path not in self.story.json_won, f"seed {self.story.seed}: two winners at {path}"
            self.story.json_won[path] = value

    def _put_input(self, writer: S3Store, number: int) -> None:
        source = self.directory / f"input-{number}"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(self.chance.randbytes(self.chance.randrange(1, 100_000)))
        sha256 = self._timed("input", lambda: writer.put_input(source))
        if sha256:
            self.story.inputs[sha256] = source.read_bytes()

    def _read(self, writer: S3Store, prefix: str) -> None:
        reader = self._timed(
            "open", lambda: self.store(self.proxy.endpoint, f"reader-{uuid.uuid4().hex[:6]}", writable=False)
        )
        found = None if reader is None else self._timed("read", lambda: whole(reader, prefix))
        assert found in (None, self.story.committed[prefix]), (
            f"seed {self.story.seed}: wrong bytes read as good"
        )

    # -- judgement ------------------------------------------------------------------------
    def _judge(self) -> None:
        """Without faults, from a machine that has never read: does the store match the results that the writers got?"""
        seed, story = self.story.seed, self.story
        store = self.store(self.server.endpoint, "judge")
        for _ in range(2):
            for prefix, content in story.committed.items():
                assert whole(store, prefix) == content, f"seed {seed}: {prefix} is lost or changed"
            for prefix, contents in story.unknown.items():
                if store.exists(prefix) and not self._is_spoilt(lambda prefix=prefix: store.open(prefix)):  # type: ignore[misc]
                    assert whole(store, prefix) in contents, f"seed {seed}: {prefix} is half of something"
            for path, tried in story.json_tried.items():
                if path not in story.json_won and self._is_spoilt(lambda path=path: store.get_json(path)):  # type: ignore[misc]
                    continue
                value = store.get_json(path)
                assert path not in story.json_won or value == story.json_won[path], f"seed {seed}: {path}"
                assert value is None or value in tried, f"seed {seed}: {path}"
            for sha256, data in story.inputs.items():
                assert store.input(sha256).read_bytes() == data, f"seed {seed}: input lost"
            # Once more when the garbage is gone: it must not have been anybody's.
            for leftover in store.leftovers():
                story.outcomes["leftover cleared"] += 1
                store.discard(leftover)

    def _is_spoilt(self, read: Callable[[], Any]) -> bool:
        """Whether it arrived wrong, and its writer got an error: it must be refused."""
        try:
            read()
        except Failure as failure:
            if failure.reason is not Reason.CORRUPT_ARTIFACT:
                raise
            self.story.outcomes["spoilt manifest or JSON refused"] += 1
            return True
        return False


def whole(store: S3Store, prefix: str) -> dict[str, bytes]:
    artifact = store.open(prefix)
    root = artifact.directory()
    return {name: (root / name).read_bytes() for name in artifact.manifest.files}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Botocore's waits between tries, a twentieth as long."""
    monkeypatch.setattr(
        "botocore.endpoint.time", types.SimpleNamespace(sleep=lambda s: time.sleep(s / 20), time=time.time)
    )


def run_sequences(
    kind: str, seeds: range, servers: Callable[[str], Server], directory: Path, workers: int
) -> Counter[str]:
    """Run them beside each other; returns what happened how often. The first broken promise is raised."""
    place = make_place(kind, directory, servers)
    server = servers(kind)

    def one(seed: int) -> tuple[Sequence, str]:
        sequence = Sequence(seed, server, place.bucket, directory / str(seed))
        try:
            sequence.run()
            return sequence, ""
        except Exception as error:  # one broken promise shall not hide the others
            return sequence, f"seed {seed}: {type(error).__name__}: {error}"
        finally:
            shutil.rmtree(directory / str(seed), ignore_errors=True)

    outcomes: Counter[str] = Counter()
    broken: list[str] = []
    longest_s = 0.0
    with ThreadPoolExecutor(workers) as pool:
        for sequence, what in pool.map(one, seeds):
            outcomes += sequence.story.outcomes
            outcomes.update({f"fault {name}": count for name, count in sequence.proxy.done.items()})
            longest_s = max(longest_s, sequence.story.longest_s)
            if what:
                broken.append(what)
                print(what, flush=True)
    print(f"\n{kind}: {len(seeds)} sequences from seed {seeds.start}, longest operation {longest_s:.1f} s")
    for name, count in sorted(outcomes.items()):
        print(f"  {name:32} {count}")
    assert not broken, broken
    return outcomes


KINDS = ("rclone", "moto", "versitygw")
_FIRST = int(os.environ.get("TUNEYARD_FAULT_SEED", "1"))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("kind", KINDS)
def test_few_seeded_fault_schedules(kind: str, servers: Callable[[str], Server], tmp_path: Path) -> None:
    outcomes = run_sequences(kind, range(_FIRST, _FIRST + 6), servers, tmp_path, 6)
    assert outcomes["commit: done"]


@pytest.mark.faults
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("kind", KINDS)
def test_many_seeded_fault_schedules(kind: str, servers: Callable[[str], Server], tmp_path: Path) -> None:
    """At least 500 sequences over all servers."""
    count = int(os.environ.get("TUNEYARD_FAULT_SEQUENCES", "510")) // len(KINDS)
    first = 1000 * (1 + KINDS.index(kind)) + _FIRST
    outcomes = run_sequences(kind, range(first, first + count), servers, tmp_path, 16)
    assert all(outcomes[f"fault {name}"] for name in FAULTS if count > 50)
