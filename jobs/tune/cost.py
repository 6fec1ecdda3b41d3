"""Dollars of one fine-tuning job: reserved before it is created, settled when it has ended."""

from __future__ import annotations

from typing import Any

from jobs.hosted.journal import Journal, created
from jobs.hosted.spending import Spending
from jobs.tune.records import UploadFacts
from launcher.outcome import Failure, Reason
from launcher.spec.catalog import HostedPrice


class JobCost:
    """The cost of this stage's job against its allowance. `price` None: it costs nothing."""

    def __init__(
        self, spending: Spending, journal: Journal, price: HostedPrice | None, facts: UploadFacts
    ) -> None:
        self._spending = spending
        self._journal = journal
        self._price = price
        self._facts = facts
        self._reserved_usd = self._usd(facts.most_tokens_an_epoch * facts.epochs)

    def _usd(self, tokens: float) -> float:
        return (self._price.training_usd(tokens) or 0.0) if self._price else 0.0

    def reserve(self) -> None:
        """Reserve the whole job. Raises Failure(OVER_BUDGET) if that does not fit and no job exists yet."""
        self._spending.begin(0.0)
        intended = self._journal.get("job-intent") is not None
        if intended or created(self._journal, "job") is not None:
            # An earlier process has created it, or may have.
            self._spending.resume(self._reserved_usd)
        else:
            self._spending.reserve(self._reserved_usd)

    def add_duplicate(self, job_id: str) -> None:
        """A second job existed for a moment: the service may bill it."""
        self._spending.add_uncertain(self._reserved_usd, f"job {job_id}, a cancelled duplicate")

    def excess(self, job: Any) -> Failure | None:
        """Why the job must be cancelled: the service trains more epochs than were reserved and allowed."""
        epochs = getattr(job.hyperparameters, "n_epochs", None)
        if not isinstance(epochs, int) or epochs <= self._facts.epochs:
            return None
        more_usd = self._usd(self._facts.most_tokens_an_epoch * (epochs - self._facts.epochs))
        if self._spending.fits(more_usd):
            return None
        return Failure(
            Reason.OVER_BUDGET,
            f"the service trains {epochs} epochs, {self._facts.epochs} were reserved: ${more_usd:.2f} more than "
            "budget_usd allows; the job is cancelled",
            next_step="set the contender's epochs, or raise budget_usd",
        )

    def settle(self, job: Any) -> None:
        """The job succeeded: replace the reservation by what its tokens cost."""
        billed = self._facts.expected_tokens if job.trained_tokens is None else max(0, job.trained_tokens)
        usd = self._usd(billed)
        self._spending.settle(self._reserved_usd, usd)
        if usd > self._reserved_usd > 0:
            print(
                f"warning: the service bills ${usd:.2f}, ${self._reserved_usd:.2f} were reserved "
                "by the upload's tokens and epochs",
                flush=True,
            )

    def settle_failed(self, job: Any) -> None:
        """The job ended without a model: it may be billed for the tokens that it trained, or for all."""
        trained = getattr(job, "trained_tokens", None)
        usd = self._reserved_usd if trained is None else self._usd(trained)
        self._spending.settle(self._reserved_usd, 0.0)
        self._spending.add_uncertain(usd, f"job {job.id} {job.status}")
