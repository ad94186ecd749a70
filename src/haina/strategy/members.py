"""Members: what the coordinator remembers of each client it has met.

One table with a row a client *seen* (never a row a client registered) and a column a remembered number. Steps read and write columns by
client name; a value is never changed in place, so a step's proposal can be dropped by keeping the table it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array

Index = NDArray[np.intp]

#: Columns every strategy keeps: rounds invited, rounds delivered, the last round delivered in, and the last loss reported.
HISTORY: dict[str, float] = {"invited": 0.0, "delivered": 0.0, "last_round": -1.0, "last_loss": np.nan}


@dataclass(frozen=True)
class Members:
    """A table of clients.

    Args:
        ids: client names, in order of first appearance.
        columns: name -> float64 `[len(ids)]`.
        defaults: the value of each column for a newcomer.
    """

    ids: tuple[str, ...] = ()
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=lambda: dict(HISTORY))
    _place: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, defaults: Mapping[str, float]) -> Members:
        """An empty table with the given columns and newcomers' values (besides `HISTORY`)."""
        defaults = {**HISTORY, **defaults}
        return cls((), {name: np.empty(0) for name in defaults}, defaults)

    def meet(self, clients: Sequence[str]) -> Members:
        """The table with a row for each of `clients`; newcomers get the defaults."""
        new = tuple(dict.fromkeys(client for client in clients if client not in self._place))
        if not new:
            return self
        place = {**self._place, **{client: len(self.ids) + i for i, client in enumerate(new)}}
        columns = {
            name: np.concatenate([self.columns[name], np.full(len(new), default)])
            for name, default in self.defaults.items()
        }
        return replace(self, ids=self.ids + new, columns=columns, _place=place)

    def get(self, column: str, clients: Sequence[str]) -> NDArray[np.float64]:
        """`[len(clients)]` values of a column; unknown clients have the default."""
        values, default = self.columns[column], self.defaults[column]
        return np.array(
            [values[self._place[c]] if c in self._place else default for c in clients], dtype=np.float64
        )

    def put(self, clients: Sequence[str], **columns: Any) -> Members:
        """The table with new values `[len(clients)]` (or scalars) for the given clients, newcomers admitted."""
        table = self.meet(clients)
        index = np.array([table._place[c] for c in clients], dtype=np.intp)
        changed = dict(table.columns)
        for name, values in columns.items():
            changed[name] = changed[name].copy()
            changed[name][index] = values
        return replace(table, columns=changed)

    def to_arrays(self) -> dict[str, Array]:
        """Arrays that restore the table exactly."""
        names = np.frombuffer(json.dumps(self.ids).encode(), dtype=np.uint8)
        return {"ids": names, **dict(self.columns)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], defaults: Mapping[str, float]) -> Members:
        """The inverse of `to_arrays`; `defaults` as given to `empty`."""
        ids = tuple(json.loads(arrays["ids"].tobytes()))
        return cls(
            ids,
            {name: np.array(arrays[name], dtype=np.float64) for name in arrays if name != "ids"},
            {**HISTORY, **defaults},
            {client: i for i, client in enumerate(ids)},
        )
