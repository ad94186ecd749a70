"""Members: what the coordinator remembers of each client it has met.

One table with a row a client *seen* (never a row a client registered) and a column a remembered number. Steps read and write columns by
client name; a value is never changed in place, so a step's proposal can be dropped by keeping the table it came from.

A round costs what its cohort costs, however many were seen: numbers lie in blocks of rows, and a new table copies the blocks it writes to and
shares the others. Names are only ever added, so tables share one list of them, and each knows how much of it is its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array

Index = NDArray[np.intp]
Block = NDArray[np.float64]

#: Columns every strategy keeps: rounds invited, rounds delivered, the last round delivered in, and the last loss reported.
HISTORY: dict[str, float] = {"invited": 0.0, "delivered": 0.0, "last_round": -1.0, "last_loss": np.nan}

#: Rows of a block. Writing ten clients copies ten blocks and the list of all; at a million seen the two cost about the same.
ROWS = 256


class _Names:
    """Names in order of first appearance, shared by all tables that grew from one another."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.order = list(names)
        self.place = {name: i for i, name in enumerate(self.order)}
        self._written = 0, b""
        self._lock = Lock()

    def grown(self, count: int, new: list[str]) -> _Names:
        """Names of which `new` follow the first `count`: these, or a copy where another table had others follow."""
        with self._lock:
            known = self.order[count : count + len(new)]
            if known == new[: len(known)]:
                for name in new[len(known) :]:
                    self.place[name] = len(self.order)
                    self.order.append(name)
                return self
        return _Names([*self.order[:count], *new])

    def to_json(self, count: int) -> bytes:
        """The first `count` as JSON; after the first time, the newcomers since are all that is put into words."""
        with self._lock:
            known, text = self._written if self._written[0] <= count else (0, b"")
            new = json.dumps(self.order[known:count])[1:-1].encode()
            self._written = count, b", ".join(filter(None, (text, new)))
            return b"[%b]" % self._written[1]


@dataclass(frozen=True, eq=False)
class Members:
    """A table of clients; made by `empty` and `from_arrays`.

    Args:
        defaults: name of each column -> its value for a newcomer, in the order of the columns.
    """

    defaults: Mapping[str, float] = field(default_factory=lambda: dict(HISTORY))
    _names: _Names = field(default_factory=_Names, repr=False)
    _count: int = 0
    #: Each `[ROWS, columns]`; rows beyond the last client hold the defaults.
    _blocks: Sequence[Block] = field(default=(), repr=False)

    def __len__(self) -> int:
        return self._count

    @classmethod
    def empty(cls, defaults: Mapping[str, float]) -> Members:
        """An empty table with the given columns and newcomers' values (besides `HISTORY`)."""
        return cls({**HISTORY, **defaults})

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the clients, in order of first appearance; made when asked for."""
        return tuple(self._names.order[: self._count])

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Name -> `[len(ids)]` of every column; made when asked for."""
        table = (
            np.concatenate(self._blocks)[: self._count] if self._blocks else np.empty((0, len(self.defaults)))
        )
        return {name: table[:, j].copy() for j, name in enumerate(self.defaults)}

    def meet(self, clients: Sequence[str]) -> Members:
        """The table with a row for each of `clients`; newcomers get the defaults."""
        new = list(dict.fromkeys(client for client in clients if self._row(client) is None))
        if not new:
            return self
        count = self._count + len(new)
        blocks = list(self._blocks)
        while len(blocks) * ROWS < count:
            blocks.append(_newcomers(self.defaults, ROWS))
        return replace(self, _names=self._names.grown(self._count, new), _count=count, _blocks=blocks)

    def get(self, column: str, clients: Sequence[str]) -> NDArray[np.float64]:
        """`[len(clients)]` values of a column; unknown clients have the default."""
        j, default = self._column(column), self.defaults[column]
        rows = map(self._row, clients)
        return np.array(
            [default if row is None else self._blocks[row // ROWS][row % ROWS, j] for row in rows],
            dtype=np.float64,
        )

    def put(self, clients: Sequence[str], **columns: Any) -> Members:
        """The table with new values `[len(clients)]` (or scalars) for the given clients, newcomers admitted."""
        table = self.meet(clients)
        rows = np.array([table._row(client) for client in clients], dtype=np.intp)
        written = np.array([self._column(name) for name in columns], dtype=np.intp)
        values = np.empty((len(rows), len(columns)))
        for j, value in enumerate(columns.values()):
            values[:, j] = value
        blocks = list(table._blocks)
        for number, part in _together(rows // ROWS):
            blocks[number] = blocks[number].copy()
            blocks[number][(rows[part] % ROWS)[:, None], written] = values[part]
        return replace(table, _blocks=blocks)

    def to_arrays(self) -> dict[str, Array]:
        """Arrays that restore the table exactly."""
        names = np.frombuffer(self._names.to_json(self._count), dtype=np.uint8)
        return {"ids": names, **self.columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], defaults: Mapping[str, float]) -> Members:
        """The inverse of `to_arrays`; `defaults` as given to `empty`."""
        names, empty = _Names(json.loads(arrays["ids"].tobytes())), cls.empty(defaults)
        count = len(names.order)
        rows = _newcomers(empty.defaults, -(-count // ROWS) * ROWS)
        for j, name in enumerate(empty.defaults):
            rows[:count, j] = arrays[name]
        blocks = list(rows.reshape(-1, ROWS, len(empty.defaults)))
        return replace(empty, _names=names, _count=count, _blocks=blocks)

    def _row(self, client: str) -> int | None:
        row = self._names.place.get(client)
        # A name that a later table added is not here yet.
        return None if row is None or row >= self._count else row

    def _column(self, name: str) -> int:
        return {known: j for j, known in enumerate(self.defaults)}[name]


def _newcomers(defaults: Mapping[str, float], count: int) -> Block:
    return np.tile(np.array(list(defaults.values()), dtype=np.float64), (count, 1))


def _together(numbers: Index) -> Iterator[tuple[int, Index]]:
    """Each distinct number, and where it stands, in order: the last of equal clients wins."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    for start, part in zip(starts, np.split(order, starts[1:]), strict=False):
        yield int(ordered[start]), part
