"""Summary: a run in one small JSON object, for programs and for `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haina.monitoring.history import best, measured, quarantines, verdicts
from haina.monitoring.text import known
from haina.strategy.record import Outcome, RoundRecord


def summary(records: Sequence[RoundRecord]) -> dict[str, Any]:
    """How a run stands, in plain JSON values.

    Returns:
        `rounds`: closed so far; `kept`: those that kept the old model; `accuracy`, `loss`: last evaluated, or null; `best_accuracy`: highest, or
        null; `best_round`: the round of the highest accuracy (of the lowest loss where there is no accuracy), or null; `model_sha256`: of the
        newest model; `seconds`: of all rounds; `effective_clients`: in the last round that has the number, or null; `verdicts`: verdict ->
        client-rounds; `quarantined`: names of the clients in quarantine at the end.
    """
    accuracy, loss = measured(records, "accuracy"), measured(records, "loss")
    top = best(records)
    counts = verdicts(records)
    effective = [value for r in records if (value := known(r.notes, "effective_clients")) is not None]
    return {
        "rounds": len(records),
        "kept": sum(record.outcome is Outcome.KEPT for record in records),
        "accuracy": accuracy[-1][1] if accuracy else None,
        "best_accuracy": top[1] if accuracy and top else None,
        "best_round": top[0] if top else None,
        "loss": loss[-1][1] if loss else None,
        "model_sha256": records[-1].model if records else "",
        "seconds": round(sum(known(record.timing, "total") or 0.0 for record in records), 6),
        "effective_clients": effective[-1] if effective else None,
        "verdicts": {str(verdict): counts[verdict].total() for verdict in counts if counts[verdict]},
        "quarantined": sorted(stay.client for stay in quarantines(records) if stay.released is None),
    }
