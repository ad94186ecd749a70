"""Marks: a measured process says when a round begins and ends, and stands still while the bench reads clocks and memory from outside.

So nothing of measuring is measured. What an engine does between the end of a round and the beginning of the next (saving weights to compare) is not
counted either.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from workload import COMPARED


class Marks:
    """The link to the bench.

    Args:
        address: path of its Unix socket.
        weights: where to save the weights after the round in which engines are compared.
    """

    def __init__(self, address: str, weights: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(address)
        self._words, self._answers = self._link.makefile("w"), self._link.makefile("r")
        self._weights, self.round = weights, 0

    def begin(self) -> None:
        """A round begins when this returns."""
        self.round += 1
        self.tell(begin=self.round)

    def end(self, weights: Callable[[], Any] | None = None) -> None:
        """A round has ended; `weights` gives the flat model, tensors in the order of a torch module."""
        self.tell(end=self.round)
        if self.round == COMPARED and weights is not None:
            np.save(self._weights, np.asarray(weights(), np.float32))

    def versions(self, *packages: str) -> None:
        """Tell which versions of packages this process has."""
        self.tell(versions={name: version(name) for name in packages})

    def tell(self, **words: Any) -> None:
        """One line to the bench, and wait for its answer."""
        self._words.write(json.dumps(words) + "\n")
        self._words.flush()
        if not self._answers.readline():
            raise SystemExit("the bench is gone")


def arguments(description: str, argv: Sequence[str] | None = None, **further: Any) -> argparse.Namespace:
    """What every engine is told; `further` are options of its own, name -> keywords of `add_argument`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the workload")
    parser.add_argument("--rounds", type=int, required=True, help="the first one, which warms up, included")
    parser.add_argument("--marks", required=True, help="the bench's socket")
    parser.add_argument("--weights", type=Path, required=True, help="a file for the weights to be compared")
    for name, keywords in further.items():
        parser.add_argument(f"--{name}", **keywords)
    return parser.parse_args(argv)
