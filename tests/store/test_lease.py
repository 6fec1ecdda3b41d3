"""Leases: one holder at a time on every store; a holder that was paused can neither write nor go on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from places import Place, reason_of

from launcher.outcome import Failure, Reason
from launcher.store import DirectoryStore, Store
from launcher.store.fenced import FencedStore
from launcher.store.lease import Lease, LeaseLost, acquire, holder_of, revoke
from launcher.store.records import LeaseHolder

FOLDER = "leases/abc"
#: S3 servers count whole seconds.
SHORT_S = 3.0

Files = Callable[[dict[str, bytes]], Path]


def take(store: Store, *, run: str = "sql-00000001", lease_s: float = 60.0) -> Lease | LeaseHolder:
    return acquire(store, FOLDER, "the stage", run=run, attempt=1, lease_s=lease_s)


def held(got: Lease | LeaseHolder) -> Lease:
    assert isinstance(got, Lease), got
    return got


def test_one_of_several_processes_gets_a_lease_and_the_others_its_holder(place: Place) -> None:
    stores = [place.elsewhere() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(take, stores))
    (lease,) = [one for one in got if isinstance(one, Lease)]
    assert lease.number == 1
    others = [one for one in got if isinstance(one, LeaseHolder)]
    assert others == [lease.holder] * 5
    assert holder_of(place.open(), FOLDER) == lease.holder


def test_a_released_lease_is_free_at_once_and_its_number_grows(place: Place) -> None:
    store = place.open()
    for number in (1, 2, 3):
        with held(take(store)) as lease:
            assert lease.number == number
            assert holder_of(store, FOLDER) == lease.holder
        assert holder_of(store, FOLDER) is None


def test_a_holder_that_does_not_renew_loses_its_lease_and_every_write(place: Place, files: Files) -> None:
    paused = place.open()
    # Not entered: no thread renews it, as if the process were stopped.
    lost = held(take(paused, lease_s=SHORT_S))
    fenced = FencedStore(paused, lost)
    fenced.put_json("runs/r/work/a.json", {"by": 1})
    taker = place.elsewhere()
    deadline = time.monotonic() + 30
    while not isinstance(got := take(taker, lease_s=60.0), Lease):
        assert got == lost.holder
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert got.number == 2
    writes: list[Callable[[], Any]] = [
        lambda: fenced.put_json("runs/r/work/a.json", {"by": 1}, create_once=False),
        lambda: fenced.commit("stages/abc", files({"a": b"1"}), {}),
        lambda: fenced.delete("runs/r/work"),
        lambda: fenced.put_input(Path(__file__)),
        lambda: fenced.publish("runs/r/log"),
    ]
    for write in writes:
        with pytest.raises(LeaseLost, match="another process has taken over the stage"):
            write()
    assert not taker.exists("stages/abc")
    assert taker.get_json("runs/r/work/a.json") == {"by": 1}
    # What the loser does at its end leaves the winner's lease alone.
    lost.release()
    assert holder_of(taker, FOLDER) == got.holder
    FencedStore(taker, got).commit("stages/abc", files({"a": b"2"}), {})
    assert taker.open("stages/abc").path("a").read_bytes() == b"2"


def test_a_renewed_lease_is_never_taken(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    with held(take(store, lease_s=0.5)) as lease:
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            assert take(DirectoryStore(tmp_path / "store")) == lease.holder
            lease.check()


def test_a_lease_whose_process_was_killed_is_free_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from launcher.store import DirectoryStore\n"
        "from launcher.store.lease import acquire\n"
        f"acquire(DirectoryStore(Path(sys.argv[1])), {FOLDER!r}, 'x', run='r', attempt=1, lease_s=3600)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    root = tmp_path / "store"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        store = DirectoryStore(root)
        assert isinstance(take(store), LeaseHolder)
        holder.kill()
        holder.wait()
    assert held(take(store)).number == 2


class RenewedInBetween(DirectoryStore):
    """A store in which the holder of lease 1 wakes up and renews it just before lease 2 is created."""

    lease: Lease

    def put_json(self, path: str, value: Any, *, create_once: bool = True) -> bool:
        if path.endswith("/000002.json"):
            self.lease.check()
        return super().put_json(path, value, create_once=create_once)


def test_a_taker_waits_while_the_old_holder_relies_on_a_late_renewal(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    old = held(take(store, lease_s=1.0))
    taker = RenewedInBetween(tmp_path / "store")
    taker.lease = old
    while not isinstance(new := take(taker), Lease):
        time.sleep(0.05)
    # The old one relied on its late renewal for half a second at most; the taker has waited for that.
    with pytest.raises(LeaseLost):
        old.check()
    new.check()


def test_an_outage_of_the_store_ends_no_lease_if_nobody_has_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path / "store")
    failed = threading.Event()
    write = DirectoryStore.put_json

    def fail(*_: object, **__: object) -> bool:
        failed.set()
        raise Failure(Reason.NETWORK, "the store is away")

    with held(take(store, lease_s=0.6)) as lease:
        monkeypatch.setattr(DirectoryStore, "put_json", fail)
        assert failed.wait(10)
        # Nothing is lost by it; what needs the lease asks again.
        lease.raise_if_lost()
        time.sleep(0.4)
        assert reason_of(lease.check) is Reason.NETWORK
        monkeypatch.setattr(DirectoryStore, "put_json", write)
        lease.check()


def test_only_the_own_runs_ended_process_is_revoked(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    lease = held(take(store, run="sql-00000001"))
    revoke(store, FOLDER, "sql-00000002")
    assert holder_of(store, FOLDER) == lease.holder
    revoke(store, FOLDER, "sql-00000001")
    assert holder_of(store, FOLDER) is None


@pytest.mark.parametrize(
    "value", [[], {"holder": 1}, {"holder": "x", "number": 0, "run": "r", "lease_s": 1}, {"lease_s": 1e99}]
)
def test_a_malformed_lease_is_named(tmp_path: Path, value: Any) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.put_json(f"{FOLDER}/000001.json", value)
    assert reason_of(lambda: take(store)) is Reason.CORRUPT_ARTIFACT


def test_the_age_of_an_object_is_by_the_stores_clock(place: Place) -> None:
    store = place.open()
    assert store.age_s("runs/r/a.json") is None
    store.put_json("runs/r/a.json", {})
    age_s = store.age_s("runs/r/a.json")
    assert age_s is not None
    assert 0.0 <= age_s < 20.0
