"""The ledger of a run: dollars that each hosted stage has spent or may be spending, over all attempts.

Only the conductor that holds the run's lease writes it, as numbered entries that are created once. It grants a stage
an allowance before it starts and settles it by the stage's own report once the stage has ended; a stage that was
killed without a report counts as having spent its whole allowance until a later process reports what was spent.
"""

from __future__ import annotations

import time

from launcher.outcome import Failure, Reason
from launcher.store import Store
from launcher.store.records import LedgerEntry
from launcher.store.runs import Attempt, append_ledger_entry, ledger_entries


class Ledger:
    """The newest entry of every stage. Read once; entries of this process are added as they are written."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._number = 0
        self._newest: dict[str, LedgerEntry] = {}
        for entry in ledger_entries(store, run_id):
            self._add(entry)

    def _add(self, entry: LedgerEntry) -> None:
        self._number = max(self._number, entry.number)
        self._newest[entry.stage] = entry

    def entry(self, stage: str) -> LedgerEntry | None:
        """The stage's newest entry; None if it was never granted anything."""
        return self._newest.get(stage)

    def usd(self, stage: str) -> float:
        """Dollars that the stage has spent, or may be spending now."""
        entry = self._newest.get(stage)
        return entry.usd if entry else 0.0

    def is_open(self, stage: str) -> bool:
        """Whether a process of the stage may be spending."""
        entry = self._newest.get(stage)
        return entry is not None and not entry.settled

    def grant(self, stage: str, attempt: int, usd: float) -> LedgerEntry:
        """Allow the stage to have spent `usd` in all attempts together."""
        return self._append(stage, attempt, usd, settled=False)

    def settle(self, stage: str) -> None:
        """Replace an open allowance by what the stage reports, if its process ended with a report."""
        entry = self._newest.get(stage)
        if entry is None or entry.settled:
            return
        report = Attempt(self._store, self._run_id, entry.attempt).spending(stage)
        if report is not None and report.entry == entry.number and not report.open:
            self._append(stage, entry.attempt, report.usd, settled=True, needed_usd=report.needed_usd)

    def needed_usd(self, stage: str) -> float | None:
        """Further dollars that the stage needs; None unless it ended because its allowance was used up."""
        entry = self._newest.get(stage)
        return entry.needed_usd if entry else None

    def _append(
        self, stage: str, attempt: int, usd: float, *, settled: bool, needed_usd: float | None = None
    ) -> LedgerEntry:
        entry = LedgerEntry(
            number=self._number + 1,
            stage=stage,
            attempt=attempt,
            usd=usd,
            settled=settled,
            needed_usd=needed_usd,
            at=time.time(),
        )
        if not append_ledger_entry(self._store, self._run_id, entry):
            raise Failure(
                Reason.KILLED,
                "another conductor has written the ledger of this run",
                where=self._run_id,
                next_step=f"launcher status {self._run_id}",
            )
        self._add(entry)
        return entry


def allowance(store: Store, run_id: str, stage: str) -> LedgerEntry:
    """The open allowance of a stage that is about to spend. Raises Failure(OVER_BUDGET) if it has none."""
    entry = Ledger(store, run_id).entry(stage)
    if entry is None or entry.settled:
        raise Failure(
            Reason.OVER_BUDGET,
            "the run has a budget, and its ledger allows this stage nothing",
            where=stage,
            next_step=f"launcher retry {run_id}: its conductor grants an allowance before it starts a stage",
        )
    return entry
