"""Table: the rounds of a run as rows of plain data; the terminal and the page dress them."""

from __future__ import annotations

from dataclasses import dataclass

from haina.monitoring.history import shaped
from haina.monitoring.text import NONE, duration, known, number, percent
from haina.strategy.record import Outcome, RoundRecord, Verdict

#: Headings of the cells of `RoundRow.cells`, in order.
COLUMNS = (
    "round",
    "accuracy",
    "loss",
    "clients in",
    "damped",
    "quarantined",
    "refused",
    "failed",
    "absent",
    "effective",
    "time",
)


@dataclass(frozen=True)
class RoundRow:
    """One round.

    Args:
        round: its number.
        outcome: whether it made a new model.
        accuracy: of the new model, in [0, 1], or None.
        loss: of the new model, or None.
        invited: clients invited.
        shaped: clients whose update is part of the new model.
        damped: clients damped or on probation.
        quarantined: clients in quarantine that sent an update.
        refused: clients whose update was unusable.
        failed: clients that could not train.
        absent: clients that sent nothing.
        effective: how many clients of equal share would weigh the same, or None.
        seconds: of the whole round, or None.
    """

    round: int
    outcome: Outcome
    accuracy: float | None
    loss: float | None
    invited: int
    shaped: int
    damped: int
    quarantined: int
    refused: int
    failed: int
    absent: int
    effective: float | None
    seconds: float | None

    def cells(self) -> tuple[str, ...]:
        """The row as text under `COLUMNS`; counts of nought are left blank so that the others are seen."""
        kept = " (kept)" if self.outcome is Outcome.KEPT else ""
        counts = (self.damped, self.quarantined, self.refused, self.failed, self.absent)
        return (
            f"{self.round}{kept}",
            percent(self.accuracy),
            number(self.loss),
            f"{self.shaped}/{self.invited}",
            *(str(count) if count else "" for count in counts),
            NONE if self.effective is None else f"{self.effective:.1f}",
            duration(self.seconds),
        )


def round_row(record: RoundRecord) -> RoundRow:
    """The row of one record."""
    verdicts = [client.verdict for client in record.clients]
    return RoundRow(
        round=record.round,
        outcome=record.outcome,
        accuracy=known(record.metrics, "accuracy"),
        loss=known(record.metrics, "loss"),
        invited=len(record.clients),
        shaped=len(shaped(record)),
        damped=verdicts.count(Verdict.DAMPED) + verdicts.count(Verdict.PROBATION),
        quarantined=verdicts.count(Verdict.QUARANTINED),
        refused=verdicts.count(Verdict.REFUSED),
        failed=verdicts.count(Verdict.FAILED),
        absent=verdicts.count(Verdict.ABSENT),
        effective=known(record.notes, "effective_clients"),
        seconds=known(record.timing, "total"),
    )
