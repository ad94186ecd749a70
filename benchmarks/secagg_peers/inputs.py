"""What both sides add up, and how a process is asked and answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A client's weight counts up to so much, and a coordinate up to so much before it is weighed.
MOST, RANGE = 1000, 1.0


def vector(client: int, dimension: int) -> NDArray[np.float32]:
    """An update: `[d]`, as models have them."""
    rng = np.random.default_rng(client)
    return (0.1 * rng.standard_normal(dimension, dtype=np.float32)).clip(-RANGE, RANGE)


def weight(client: int) -> int:
    """How many examples a client trained on."""
    return 50 + 37 * client % (MOST - 50)


def mean(clients: list[int], dimension: int) -> NDArray[np.float64]:
    """The weighted mean that should come out."""
    total = np.zeros(dimension)
    for client in clients:
        total += weight(client) * vector(client, dimension).astype(np.float64)
    return total / sum(map(weight, clients))


def serve(tasks: dict[str, Callable[..., dict[str, Any]]], greeting: dict[str, Any]) -> None:
    """Answer tasks, a line of JSON each, until there are no more."""
    print(json.dumps(greeting), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(tasks[task.pop("task")](**task)), flush=True)
