"""RScript: the home of the `rscript` learner. A site's own `train.R` runs in one R process, for all clients that this process trains.

Rows go to R once and stay there, found again by the SHA-256 of what they hold; of very many, those not used for longest are let go.

The trap is what the file says. It comes from the coordinator, so it may name a script and never hold one, and a name leads nowhere but into the
site's own folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.r.answer import BESIDE, Answer, RError
from haina.learners.r.coefficients import Coefficients
from haina.learners.r.home import Columns, Config
from haina.learners.r.process import START, TRIES, REnded, RProcess

#: Bytes of rows that R keeps, as float64.
ROOM = 1 << 30


@dataclass(frozen=True)
class RScript:
    """An R script and the process it runs in.

    Args:
        folder: of the site.
        script: name of the file in it, such as "train.R".
        model: what is learnt.
        columns: what rows look like.
        timeout: seconds for one client's training, > 0.
        room: bytes of rows that R keeps between calls.

    Raises:
        LearnerError: the name is not that of a file in the folder, or a time that is none.
    """

    folder: Path
    script: str
    model: Coefficients
    columns: Columns
    timeout: float = 300.0
    room: int = ROOM

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]{0,99}\.[rR]", self.script):
            raise LearnerError(
                f"script is {self.script!r}",
                allowed='the name of a file beside the federation file: "train.R"',
            )
        if not 0 < self.timeout < float("inf"):
            raise LearnerError(f"timeout is {self.timeout}", allowed='seconds > 0, or "5m"')

    @property
    def path(self) -> Path:
        """The script's file."""
        return (self.folder / self.script).resolve()

    @property
    def there(self) -> bool:
        """True where the script is in the folder and R on the machine."""
        return self.path.is_file() and shutil.which("Rscript") is not None

    @cached_property
    def process(self) -> RProcess:
        """Not yet started."""
        return RProcess(self.folder.resolve(), {"script": str(self.path), **self._names})

    @property
    def _names(self) -> dict[str, Any]:
        return {
            "names": list(self.model.names),
            "features": list(self.columns.features),
            "classes": None if self.columns.classes is None else list(self.columns.classes),
        }

    def train(self, params: Array, x: Array, y: Array, config: Config) -> Answer:
        """See `haina.learners.r.home.Home`. A process that ends is started again, once; one that does not answer in time is not asked again.

        Raises:
            RError: R met an error, ended twice, or did not answer in time.
            LearnerError: there is no such script here, or no R.
        """
        if not self.path.is_file():
            raise LearnerError(
                f"there is no file {self.path}",
                allowed="a script of this site's own, which defines train(params, data, config)",
                remedy="Put it there; a coordinator cannot send one",
            )
        words = {"call": "train", "config": dict(config)}
        answer, numbers = self._asked(words, params, x, y, self.model.length + BESIDE, self.timeout)
        return _answer(answer, numbers, self.model.length)

    def evaluate(self, params: Array, x: Array, y: Array, config: Config) -> Mapping[str, float] | None:
        """What the script's own `evaluate(params, data, config)` says; None without script, R or such a function."""
        if not self._offers("evaluate"):
            return None
        words = {"call": "evaluate", "config": dict(config)}
        answer, numbers = self._asked(words, params, x, y, BESIDE, self.timeout)
        return dict(zip(answer["metrics"], numbers.tolist(), strict=True))

    def predict(self, params: Array, x: Array, config: Config) -> Array | None:
        """What the script's `predict(params, x, config)` says; None without script, R or such a function."""
        if not self._offers("predict"):
            return None
        words = {"call": "predict", "config": dict(config)}
        most = len(x) * max(2, len(self.columns.classes or ()))
        answer, numbers = self._asked(words, params, x, np.zeros(len(x)), most, self.timeout)
        return numbers.reshape([int(size) for size in answer["shape"]], order="F")

    def _offers(self, name: str) -> bool:
        if not self.there:
            return False
        self.process.start()
        return name in self.process.offers

    def _asked(
        self, words: Mapping[str, Any], params: Array, x: Array, y: Array, most: int, limit: float
    ) -> tuple[dict[str, Any], Array]:
        process, key = self.process, _key(x, y)
        for attempt in range(1, TRIES + 1):
            with process.lock:
                process.start()
                try:
                    self._hand_over(key, x, y)
                    return process.exchange({**words, "key": key}, (params,), most, limit)
                except REnded as error:
                    if attempt == TRIES:
                        raise RError(
                            f"{error.reason.rstrip(')')}, {TRIES} times on the same call)"
                        ) from error
        raise AssertionError

    def _hand_over(self, key: str, x: Array, y: Array) -> None:
        """Give R rows that it does not hold, and let it drop others to make room."""
        held = self.process.held
        if key in held:
            held[key] = held.pop(key)
            return
        size, dropped = 8 * (x.size + len(y)), []
        while held and sum(held.values()) + size > self.room:
            dropped.append(next(iter(held)))
            del held[dropped[-1]]
        words = {"call": "rows", "key": key, "rows": len(x), "columns": x.shape[1], "drop": dropped}
        self.process.exchange(words, (x, y), 0, START)
        held[key] = size


def _answer(answer: Mapping[str, Any], numbers: Array, length: int) -> Answer:
    names = [str(name) for name in answer.get("metrics", ())]
    if len(numbers) != length + 1 + len(names):
        raise RError(
            f"its R process answered {len(numbers)} numbers, and {length + 1 + len(names)} were announced"
        )
    metrics = dict(zip(names, numbers[length + 1 :].tolist(), strict=True))
    return Answer(numbers[:length], float(numbers[length]), metrics)


def _key(x: Array, y: Array) -> str:
    """The rows' identity: the same rows are the same, whoever has them."""
    digest = hashlib.sha256(f"{x.shape}{x.dtype}{y.dtype}".encode())
    for array in (x, y):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
