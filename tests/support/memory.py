"""A coordinator's memory on either database, the rows to put into it, and threads that race for it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haina.coordinator.store import ContributionRow, FederationRow, ModelRow, RoundRow, Store


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Memory:
    """One database, and the stores that were opened on it: on SQLite the one there can be, on PostgreSQL as many as are asked for."""

    url: str | None
    folder: Path
    clock: Clock = field(default_factory=Clock)
    stores: list[Store] = field(default_factory=list)

    def open(self, patience: float = 20.0) -> Store:
        if self.url is None and self.stores:
            return self.stores[0]
        self.stores.append(Store.open(self.url, self.folder, self.clock, patience=patience))
        return self.stores[-1]

    def close(self) -> None:
        while self.stores:
            self.stores.pop().close()


def race(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What each of `count` threads got, all let go at once."""
    gate = threading.Barrier(count)

    def one(number: int) -> Any:
        gate.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def sha(number: int) -> str:
    return f"{number:064x}"


def federation(name: str = "iris", **values: Any) -> FederationRow:
    return FederationRow(name, text=f'name = "{name}"\n', columns="{}", created=1.0, **values)


def model(version: int = 0, federation: str = "iris", **values: Any) -> ModelRow:
    told = {"sha256": sha(version), "bytes": 10, "parent": version - 1 if version else None, "round": version}
    return ModelRow(
        federation, version, **told | {"state_sha256": sha(1000 + version), "created": 2.0} | values
    )


def round_row(number: int = 1, federation: str = "iris", **values: Any) -> RoundRow:
    told = {
        "version": number - 1,
        "roster": {"b": 20, "a": 10},
        "task": {"seed": 7},
        "target": 2,
        "quorum": 1,
    }
    return RoundRow(federation, number, opened=3.0, deadline=60.0, **told | values)


def contribution(node: str, round: int = 1, federation: str = "iris", **values: Any) -> ContributionRow:
    told = {
        "counted_in": round,
        "version": round - 1,
        "status": "accepted",
        "received": 4.0,
        "epoch": "e1",
        "sha256": sha(77),
    }
    return ContributionRow(federation, round, node, **told | values)


def begun(store: Store, **values: Any) -> Store:
    """A store with the federation `iris`, its first model, and round 1 under way."""
    store.put_federation(federation(), model())
    assert store.open_round(round_row(**values))
    return store
