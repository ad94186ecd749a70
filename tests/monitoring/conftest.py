"""Runs for the tests of monitoring: one written by hand, one made by a real strategy."""

from dataclasses import replace

import numpy as np
import pytest

from haina.report import Report
from haina.strategy.presets import PRESETS
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict
from haina.update import Failure, Update


def client(name, verdict=Verdict.ADMITTED, share=0.0, **more):
    return ClientRecord(name, verdict, share, **more)


def judged(name, verdict, share, prior, trust, **evidence):
    return ClientRecord(
        name,
        verdict,
        share,
        prior,
        factors={"samples": 100 * prior * 10, "trust": 1.0 if share else 0.0},
        evidence={**evidence, "consistency": trust, "trust": trust},
        norm=1.0,
    )


@pytest.fixture
def by_hand():
    """Five rounds, six clients: `mallory` is damped in round 2, quarantined in 3 and 4 and released in 5; round 4 keeps the old model."""
    conduct = {
        1: (Verdict.ADMITTED, 0.25, 0.5, 0.6),
        2: (Verdict.DAMPED, 0.1, -0.5, 0.4),
        3: (Verdict.QUARANTINED, 0.0, -0.83, 0.2),
        4: (Verdict.QUARANTINED, 0.0, -0.9, 0.1),
        5: (Verdict.PROBATION, 0.05, 0.7, 0.5),
    }
    records = []
    for number, (verdict, share, cosine, trust) in conduct.items():
        rest = 1 - share
        clients = (
            judged("anna", Verdict.ADMITTED, 0.6 * rest, 0.5, 0.9, cosine=0.8, deviation=0.3),
            judged("boris", Verdict.ADMITTED, 0.4 * rest, 0.25, 0.8, cosine=0.7, deviation=0.4),
            judged(
                "mallory", verdict, share, 0.25, trust, cosine=cosine, deviation=0.5 if trust > 0.4 else 2.5
            ),
            client("clara", Verdict.ABSENT, reason="no update arrived"),
            client("dora", Verdict.FAILED, reason="out of memory"),
            client("emil", Verdict.REFUSED, reason="coordinate 3 of the update is not a finite number"),
        )
        kept = number == 4
        records.append(
            RoundRecord(
                number,
                Outcome.KEPT if kept else Outcome.STEPPED,
                clients,
                reason="the server's step gave a model that is not finite" if kept else "",
                model=f"{number:064x}",
                notes={"effective_clients": 2.0},
                decisions={"arbiter": "mean" if number < 3 else "robust"},
                metrics={}
                if kept
                else {"accuracy": [0.5, 0.92, 0.85, 0, 0.95][number - 1], "loss": 1 / number},
                timing={"total": 0.5},
            )
        )
    return records


@pytest.fixture
def by_strategy():
    return run_strategy


def run_strategy(preset="fedavg", rounds=4, **settings):
    """Ten clients in a real strategy: `c6` sends the opposite of the others, `c7` something not finite, `c8` fails, `c9` stays away."""
    strategy = PRESETS[preset](**settings)
    names = [f"c{i}" for i in range(10)]
    model = np.zeros(6, np.float32)
    state, records = strategy.init(model), []
    rng = np.random.default_rng(0)
    for number in range(1, rounds + 1):
        reports = {name: Report(examples=10.0 * (i + 1), steps=5) for i, name in enumerate(names)}
        opened = strategy.open(state, model, {**reports, "c9": None})
        for i, name in enumerate(names[:8]):
            vector = np.ones(6, np.float32) + rng.normal(0, 0.05, 6).astype(np.float32)
            vector = -3 * vector if i == 6 else vector * np.float32(np.nan) if i == 7 else vector
            opened.add(Update(name, vector, reports[name]))
        opened.fail(Failure("c8", "the disk is full"))
        closed = opened.close()
        model, state = closed.model, closed.state
        metrics = {"accuracy": 0.5 + 0.1 * number, "loss": 1 / number}
        records.append(
            replace(closed.record, model=f"{number:064x}", metrics=metrics, timing={"total": 0.25})
        )
    return records
