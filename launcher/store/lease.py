"""Numbered leases in the store: one process at a time conducts a run or works on a stage, on any machine.

A lease is a folder. Its holder has created the object with the highest number (create-once, so that one of several
processes wins) and renews it by rewriting an object beside it. Another process may create the next number if the
holder has released its own, is known to have ended, or has not renewed for `lease_s`, by the store's clock. A holder
that was paused learns from the higher number that it has lost the lease: `Lease.check` raises, and everything that a
stage writes or spends is preceded by a check (see `fenced`).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType

from launcher.outcome import Failure, Reason
from launcher.store.artifact import Store
from launcher.store.records import LeaseHolder, LeaseRenewal
from launcher.system.process_identity import ProcessIdentity

#: Without a renewal for this long a lease has expired.
LEASE_S = 30.0
#: Renewals in the time of one lease.
_RENEWALS = 6
#: Share of `lease_s` after its last renewal in which a holder relies on it without asking the store.
_TRUSTED = 0.5


def stage_lease(stage_key: str) -> str:
    """The folder of the lease of a stage, whatever runs it belongs to."""
    return f"leases/{stage_key}"


def run_lease(run_id: str) -> str:
    """The folder of the lease of a run's conductor."""
    return f"runs/{run_id}/lease"


class LeaseLost(Failure):
    """Another process has taken the lease over."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(
            Reason.KILLED,
            f"another process has taken over {what}",
            where=where,
            next_step="wait for it: what it commits is used",
        )


def holder_of(
    store: Store, folder: str, *, has_ended: Callable[[LeaseHolder], bool] | None = None
) -> LeaseHolder | None:
    """The process that holds the lease now; None if it is free.

    `has_ended` says of a holder on another machine whether it is known to have ended.
    """
    newest = _newest(store, folder)
    return _live(store, folder, newest, has_ended) if newest else None


def acquire(
    store: Store,
    folder: str,
    what: str,
    *,
    run: str,
    attempt: int,
    owner: str = "",
    lease_s: float = LEASE_S,
    has_ended: Callable[[LeaseHolder], bool] | None = None,
) -> Lease | LeaseHolder:
    """The lease, or its live holder if another process has it. `what` names the thing held, in messages."""
    while True:
        newest = _newest(store, folder)
        if newest and (live := _live(store, folder, newest, has_ended)):
            return live
        own = ProcessIdentity.own()
        holder = LeaseHolder(
            holder=uuid.uuid4().hex,
            number=newest + 1,
            run=run,
            attempt=attempt,
            owner=owner,
            lease_s=lease_s,
            **vars(own),
        )
        taken_at = _clock_s()
        if not store.put_json(_path(folder, holder.number), holder.to_json()):
            continue  # another process was faster
        if newest:
            _let_the_loser_notice(store, folder, newest)
        return Lease(store, folder, holder, what, taken_at)


def _let_the_loser_notice(store: Store, folder: str, number: int) -> None:
    """Wait if the holder of `number` has renewed it between our look and our creation of the next one.

    It may rely on that renewal without asking the store, but not for longer than this.
    """
    holder, renewal = _read(store, folder, number)
    age_s = store.age_s(_renewal_path(folder, number))
    if holder is None or age_s is None or (renewal and renewal.released):
        return
    trusted_s = holder.lease_s * _TRUSTED
    if not holder.identity.has_ended and age_s < trusted_s:
        time.sleep(trusted_s - age_s)


def revoke(store: Store, folder: str, run: str) -> None:
    """Release the newest lease if a process of `run` holds it. Call it only if that process has ended."""
    newest = _newest(store, folder)
    holder = _read(store, folder, newest)[0] if newest else None
    if holder is not None and holder.run == run:
        _renew(store, folder, newest, released=True)


class Lease:
    """A held lease. Renewed by a thread while it is entered; released at the end. Thread-safe."""

    def __init__(self, store: Store, folder: str, holder: LeaseHolder, what: str, taken_at: float) -> None:
        self._store = store
        self._folder = folder
        self._what = what
        self.holder = holder
        self._lock = threading.Lock()
        #: When a renewal that succeeded was begun, by `_clock_s`.
        self._renewed_at = taken_at
        self._lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="tuneyard-lease")

    @property
    def number(self) -> int:
        return self.holder.number

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self.release()

    def release(self) -> None:
        """Let another process take the lease at once. Does nothing if one has taken it."""
        if self._lost:
            return
        try:
            _renew(self._store, self._folder, self.number, released=True)
        except Failure as failure:
            # It expires by itself.
            print(f"warning: {self._what} was not released: {failure.what}", flush=True)

    def check(self) -> None:
        """Raise LeaseLost if another process has taken over. Asks the store only if the last renewal is old."""
        if not self._is_trusted:
            with self._lock:
                if not self._lost and not self._is_trusted:
                    self._confirm()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raise LeaseLost if a renewal has found that another process has taken over. Does not ask the store."""
        if self._lost:
            raise LeaseLost(self._what, self._folder)

    @property
    def _is_trusted(self) -> bool:
        return not self._lost and _clock_s() - self._renewed_at <= self.holder.lease_s * _TRUSTED

    def _confirm(self) -> None:
        """Renew, then look for a higher number: a process that creates one later sees the renewal first."""
        begun_at = _clock_s()
        _renew(self._store, self._folder, self.number, released=False)
        if self._store.get_json(_path(self._folder, self.number + 1)) is not None:
            self._lost = True
        else:
            self._renewed_at = begun_at

    def _keep(self) -> None:
        while not self._end.wait(self.holder.lease_s / _RENEWALS):
            with self._lock:
                if self._lost:
                    return
                try:
                    self._confirm()
                except Failure as failure:
                    # The store may come back in time; if not, `check` asks it again.
                    print(f"warning: the lease of {self._what} was not renewed: {failure.what}", flush=True)


def _clock_s() -> float:
    """Seconds that also pass while the machine is suspended."""
    return time.clock_gettime(
        time.CLOCK_BOOTTIME if hasattr(time, "CLOCK_BOOTTIME") else time.CLOCK_MONOTONIC
    )


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"


def _renewal_path(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}-renewal.json"


def _newest(store: Store, folder: str) -> int:
    """The highest number; 0 if the lease was never held."""
    stems = (name.removesuffix(".json") for name in store.list(folder))
    return max((int(stem) for stem in stems if stem.isdigit()), default=0)


def _renew(store: Store, folder: str, number: int, *, released: bool) -> None:
    renewal = LeaseRenewal(at=time.time(), released=released)
    store.put_json(_renewal_path(folder, number), renewal.to_json(), create_once=False)


def _read(store: Store, folder: str, number: int) -> tuple[LeaseHolder | None, LeaseRenewal | None]:
    path, renewal_path = _path(folder, number), _renewal_path(folder, number)
    value, renewal = store.get_json(path), store.get_json(renewal_path)
    return (
        None if value is None else LeaseHolder.read(value, path),
        None if renewal is None else LeaseRenewal.read(renewal, renewal_path),
    )


def _live(
    store: Store, folder: str, number: int, has_ended: Callable[[LeaseHolder], bool] | None
) -> LeaseHolder | None:
    """The holder of lease `number` unless it has released it, has ended, or has not renewed it in time."""
    holder, renewal = _read(store, folder, number)
    if holder is None or (renewal is not None and renewal.released):
        return None
    if holder.identity.has_ended or (has_ended is not None and has_ended(holder)):
        return None
    ages_s = [store.age_s(path) for path in (_path(folder, number), _renewal_path(folder, number))]
    youngest_s = min((age_s for age_s in ages_s if age_s is not None), default=None)
    return holder if youngest_s is not None and youngest_s <= holder.lease_s else None
