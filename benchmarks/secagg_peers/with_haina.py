"""Our side: real members and a real aggregator, every call timed. What a member does with its own update (bound, weigh, round) is in its time."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from inputs import MOST, RANGE, mean, serve, vector, weight

from haina.privacy.grid import Grid
from haina.privacy.secagg import (
    Aggregator,
    Member,
    Plan,
    SecAggError,
    Terms,
    check_advert,
    plan,
    secure_sum,
)
from haina.privacy.secagg.masks import add_masks
from haina.privacy.stream import Stream

cpu = time.process_time
#: Coordinates that are bounded, weighed and rounded together.
PIECE = 1 << 14
#: How many keys are masked with when masking alone is timed.
KEYS = 40


class Clock:
    """CPU seconds by step: of each client, and of the server."""

    def __init__(self) -> None:
        self.clients: dict[str, list[float]] = defaultdict(list)
        self.server: dict[str, float] = defaultdict(float)

    def client(self, step: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """A call of one client."""
        start = cpu()
        out = call(*arguments)
        self.clients[step].append(cpu() - start)
        return out

    def serve(self, step: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """A call of the server."""
        start = cpu()
        out = call(*arguments)
        self.server[step] += cpu() - start
        return out


def mean_of(total: Any, grid: Grid) -> Any:
    """The weighted mean in a sum of words that was opened, piece by piece."""
    out = np.empty(len(total) - 1)
    scale = MOST / float(grid.integers(total[:1])[0])
    for start in range(0, len(out), PIECE):
        piece = total[start + 1 : start + 1 + PIECE]
        np.multiply(grid.values(grid.integers(piece)), scale, out=out[start : start + PIECE])
    return out


def play(
    members: int,
    dimension: int,
    degree: int = 0,
    threshold: int = 0,
    corrupt: float = 0.1,
    drop: float = 0.1,
) -> dict[str, Any]:
    """One round: the first tenth vanishes after it has shared."""
    terms = Terms(federation="bench", round=1, task="00" * 32, length=dimension + 1, word=32, corrupt=corrupt)
    grid = Grid.for_sum(RANGE, members)
    numbers = plan(members, corrupt=corrupt, dropout=drop)
    if degree:
        numbers = Plan(degree, threshold, max(threshold, numbers.least))
    setting = terms.setting(0, numbers.degree, numbers.threshold, numbers.least)
    names = {f"client-{client:05}": client for client in range(members)}
    identities = {name: Ed25519PrivateKey.generate() for name in names}
    clock, made = Clock(), {}

    def advertise(name: str) -> Any:
        made[name] = Member(name, identities[name], terms, os.urandom)
        return made[name].advertise()

    adverts = {name: clock.client("advertise", advertise, name) for name in names}
    for advert in adverts.values():
        clock.serve("adverts", check_advert, advert, terms)
    everyone = tuple(adverts.values())
    aggregator = clock.serve("graph", Aggregator, setting, everyone)
    pins = {name: advert.identity for name, advert in adverts.items()}
    shared = {name: clock.client("share", made[name].share, setting, everyone, pins.get) for name in names}
    uploaders = list(names)[round(drop * members) :]
    total, truth = np.zeros(terms.length, np.uint32), np.zeros(terms.length, np.int64)

    def words(update: Any, examples: int) -> Any:
        out, stream = np.empty(terms.length, np.uint32), Stream.fresh(os.urandom)
        out[0] = examples
        # Piece by piece, so that no temporary is as long as the vector.
        for start in range(0, dimension, PIECE):
            piece = np.clip(update[start : start + PIECE], -RANGE, RANGE)
            weighed = np.multiply(piece, examples / MOST, dtype=np.float64)
            out[start + 1 : start + 1 + len(piece)] = grid.words(grid.quantise(weighed, stream))
        return out

    for name in uploaders:
        inbox = clock.serve("route", aggregator.inbox, shared, name)
        update, start = vector(names[name], dimension), cpu()
        row = words(update, weight(names[name]))
        rounding = cpu() - start
        truth += grid.integers(row)
        masked = clock.client("upload", made[name].upload, inbox, row)
        clock.clients["upload"][-1] += rounding
        clock.serve("sum", np.add, total, masked, total)
    consents = {name: clock.client("consent", made[name].consent, uploaders) for name in uploaders}
    answers = {}
    for name in uploaders:
        shown = clock.serve("route", aggregator.consents, consents, name)
        answers[name] = clock.client("unmask", made[name].unmask, uploaders, shown)
    clock.serve("open", aggregator.open, total, shared, uploaders, answers)
    result = clock.serve("values", mean_of, total, grid)
    return {
        "client": sum(median(times) for times in clock.clients.values()),
        "client_steps": {step: median(times) for step, times in clock.clients.items()},
        "server": sum(clock.server.values()),
        "server_steps": dict(clock.server),
        "upload": masked.nbytes,
        "exact": bool((grid.integers(total) == truth).all()),
        "error": float(np.abs(result - mean([names[name] for name in uploaders], dimension)).max()),
        "numbers": [numbers.degree, numbers.threshold, numbers.least],
    }


def masking(words: int) -> dict[str, Any]:
    """Masking alone: bytes of the vector, once for each key, by CPU second."""
    row, keys = np.zeros(words, np.uint32), [os.urandom(32) for _ in range(KEYS)]
    times = []
    for _ in range(9):
        start = cpu()
        add_masks(row, keys[::2], keys[1::2])
        times.append(cpu() - start)
    return {"rates": sorted(row.nbytes * KEYS / took / 1e9 for took in times)}


def exact(members: int) -> dict[str, Any]:
    """From nobody to one too many dropping out before each step: either the sum of the uploaders to the last bit, or a refusal."""
    terms = Terms(federation="bench", round=1, task="00" * 32, length=1000)
    rng = np.random.default_rng(7)
    rows = {
        f"client-{client:02}": rng.integers(0, 1 << 32, terms.length, dtype=np.uint32)
        for client in range(members)
    }
    # A complete graph, so that any so many may drop out.
    numbers = Plan(members - 1, 2 * members // 3 + 1, 2 * members // 3 + 1)
    most = members - numbers.least
    sums = refusals = wrong = 0
    for step in ("share", "upload", "consent", "unmask"):
        for count in range(most + 2):
            gone = list(rng.permutation(list(rows))[:count])
            try:
                result = secure_sum(rows, terms, os.urandom, numbers=numbers, dropping={step: gone})
            except SecAggError:
                refusals += 1
                wrong += count <= most
                continue
            left = [name for name in rows if name not in gone or step in ("consent", "unmask")]
            truth = np.sum([rows[name] for name in left], axis=0, dtype=np.uint32)
            sums += 1
            wrong += not (result.words == truth).all() or count > most
    return {"sums": sums, "refusals": refusals, "wrong": wrong, "most": most}


if __name__ == "__main__":
    serve(
        {"play": play, "masking": masking, "exact": exact},
        {
            "version": version("haina"),
            "numpy": np.__version__,
            "cryptography": version("cryptography"),
        },
    )
