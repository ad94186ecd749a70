"""Turn: one round of a simulation, as every process that works on it sees it.

A turn is what is drawn before anybody trains. The driver can train all of its clients, or tell workers the same turn, and each trains some of them.

The trap: sums of several processes add up only if each made the same shares from the same reports. So a worker is told of everybody who was invited,
and of the strategy's memory the rows of those: what it gets grows with the cohort and never with the population.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.strategy.members import Members
from haina.strategy.strategy import Instructions, Strategy, StrategyState

#: Parts of the state that a worker needs: the sums are scaled by them. The server's own memory, as long as the model or longer, is not.
_PARTS = ("rate", "clip", "release")


@dataclass(frozen=True)
class Turn:
    """Who does what in a round.

    Args:
        model: `[d]` current model.
        state: what the strategy remembers; in a worker, as much of it as a round is opened with.
        instructions: what all clients are told.
        clients: n invited clients, in the order of the record.
        epochs: `[n]` epochs that each manages; 0 for those that do not answer.
        memories: what clients remember between rounds (SCAFFOLD, FedDyn): client -> `[d]`.
    """

    model: Array
    state: StrategyState
    instructions: Instructions
    clients: tuple[str, ...]
    epochs: NDArray[np.int64]
    memories: Mapping[str, Array] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Number of the round, from 1."""
        return self.instructions.round

    @cached_property
    def present(self) -> list[int]:
        """Positions of those that answer."""
        return np.flatnonzero(self.epochs).tolist()

    def names(self, positions: Sequence[int]) -> list[str]:
        """Clients at some positions."""
        return [self.clients[i] for i in positions]

    def to_arrays(self, positions: Sequence[int]) -> tuple[dict[str, Array], dict[str, str]]:
        """The turn as a worker needs it that trains the clients at `positions`: arrays, not copied, and words."""
        instructions, members = self.instructions, self.state.members
        remembering = [name for name in self.names(positions) if name in self.memories]
        arrays = {"model": self.model, "epochs": self.epochs, "positions": np.array(positions, np.int64)}
        arrays |= {f"members/{name}": members.get(name, self.clients) for name in members.defaults}
        arrays |= {
            f"{part}/{name}": array
            for part in _PARTS
            for name, array in self.state.parts.get(part, {}).items()
        }
        arrays |= {f"memory/{k}": self.memories[name] for k, name in enumerate(remembering)}
        if instructions.control is not None:
            arrays["control"] = instructions.control
        words = {
            "round": instructions.round,
            "learning_rate": instructions.learning_rate,
            "proximal": instructions.proximal,
            "limit": instructions.limit,
            "clients": self.clients,
            "remembering": remembering,
        }
        return arrays, {"turn": json.dumps(words)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Array], words: Mapping[str, str], strategy: Strategy
    ) -> tuple[Self, list[int]]:
        """The inverse of `to_arrays`: the turn, and the positions to train."""

        def under(part: str) -> dict[str, Array]:
            start = f"{part}/"
            return {
                name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)
            }

        told = json.loads(words["turn"])
        clients = tuple(told["clients"])
        members = Members.empty(strategy.columns).put(clients, **under("members"))
        parts = {part: under(part) for part in _PARTS}
        turn = cls(
            model=arrays["model"],
            state=StrategyState(told["round"] - 1, members, {**parts, "server": {}}),
            instructions=Instructions(
                told["round"],
                told["learning_rate"],
                told["proximal"],
                arrays.get("control"),
                told["limit"],
            ),
            clients=clients,
            epochs=arrays["epochs"],
            memories={name: arrays[f"memory/{k}"] for k, name in enumerate(told["remembering"])},
        )
        return turn, arrays["positions"].tolist()
