"""RService: the home of the `rservice` learner. A service in R that runs anyway (plumber, say) is asked by HTTP, one call at a time.

binary   a frame (`haina.learners.r.frames`): params, x column by column, y; back: params, n, metrics
json     {"data": rows as tables, "params", "config"}; back: {"coef" or "params", "n", "metrics", "names"}. 73 times slower at a million
         numbers, and R keeps 15 digits of each
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.r.answer import BESIDE, Answer, RError
from haina.learners.r.coefficients import Coefficients
from haina.learners.r.frames import FrameError, frame, read_frame
from haina.learners.r.home import Columns, Config
from haina.learners.r.post import Origin, post

#: Bytes of a number in JSON, with all around it.
_DIGITS = 40
#: Bytes of names and words in an answer.
_WORDS = 1 << 20


@dataclass(frozen=True)
class RService:
    """A service in R.

    Args:
        url: where it is asked: http or https, host, port and path.
        model: what is learnt.
        columns: what rows look like.
        timeout: seconds for one client, connecting included, > 0.
        format: of messages.

    Raises:
        LearnerError: the address is none, or a time that is none.
    """

    url: str
    model: Coefficients
    columns: Columns
    timeout: float = 300.0
    format: Literal["binary", "json"] = "binary"
    _one: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise LearnerError(f"timeout is {self.timeout}", allowed='seconds > 0, or "5m"')
        Origin.of(self.url)

    def train(self, params: Array, x: Array, y: Array, config: Config) -> Answer:
        """See `haina.learners.r.home.Home`.

        Raises:
            RError: no connection, no answer in time, another status than 200, or an answer that cannot be used; each in words of its own.
            LearnerError: the owner of this machine does not allow this service.
        """
        if self.format == "json":
            body = _in_json(self.columns, params, x, y, config)
            return _from_json(self._asked([body], "application/json"), self.model)
        header = {
            "rows": len(x),
            "columns": x.shape[1],
            "params": len(params),
            "names": list(self.model.names),
            "features": list(self.columns.features),
            "classes": None if self.columns.classes is None else list(self.columns.classes),
            "config": dict(config),
        }
        answer = self._asked(frame(header, params, x, y), "application/octet-stream")
        return _from_frame(answer, self.model)

    def evaluate(self, params: Array, x: Array, y: Array, config: Config) -> None:
        """A service trains and does nothing else."""

    def predict(self, params: Array, x: Array, config: Config) -> None:
        """A service trains and does nothing else."""

    def _asked(self, pieces: list[bytes | memoryview], kind: str) -> bytes:
        most = _WORDS + _DIGITS * (self.model.length + BESIDE)
        # R computes one thing at a time; who came second would wait in its queue, and its time would run.
        with self._one:
            return post(self.url, pieces, kind, timeout=self.timeout, most=most)


def _from_frame(data: bytes, model: Coefficients) -> Answer:
    place = 0

    def read(count: int) -> bytes:
        nonlocal place
        place += count
        if place > len(data):
            raise FrameError("R's answer ends in the middle of a message")
        return data[place - count : place]

    try:
        header, numbers = read_frame(read, model.length + BESIDE)
    except FrameError as error:
        raise RError(f"its R service answered what is no message: {error.what}") from error
    names = header.get("metrics") or []
    names = [names] if isinstance(names, str) else names
    count = model.length + 1 + (len(names) if isinstance(names, list) else 0)
    if place != len(data):
        raise RError("its R service answered more than one message")
    if not isinstance(names, list) or len(numbers) != count:
        raise RError(
            f"its R service answered {len(numbers)} numbers, and {count} were to come: params, n, metrics"
        )
    metrics = dict(zip(map(str, names), numbers[model.length + 1 :].tolist(), strict=True))
    return Answer(numbers[: model.length], float(numbers[model.length]), metrics)


def _in_json(columns: Columns, params: Array, x: Array, y: Array, config: Config) -> bytes:
    if "y" in columns.features or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise RError('its rows cannot be JSON: numbers that are not finite, or a feature called "y"')
    names = [*columns.features, "y"]
    rows = [
        dict(zip(names, [*row, value], strict=True))
        for row, value in zip(x.tolist(), y.tolist(), strict=True)
    ]
    return json.dumps({"data": rows, "params": params.tolist(), "config": dict(config)}).encode()


def _from_json(data: bytes, model: Coefficients) -> Answer:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RError("its R service answered what is not JSON") from error
    found: Mapping[str, Any] = said if isinstance(said, dict) else {}
    params, names, n = found.get("params", found.get("coef")), found.get("names"), found.get("n")
    # R writes one number as a list of one, where nobody tells it otherwise.
    n = n[0] if isinstance(n, list) and len(n) == 1 else n
    metrics = found.get("metrics") or {}
    numbers = isinstance(params, list) and all(map(_is_number, params))
    if not numbers or not (n is None or _is_number(n)) or not isinstance(metrics, dict):
        raise RError('its R service answered JSON without "coef" (or "params"), a list of numbers')
    metrics = {
        name: value[0] if isinstance(value, list) and value else value for name, value in metrics.items()
    }
    if not all(map(_is_number, metrics.values())):
        raise RError("its R service answered metrics that are not numbers")
    if model.names and isinstance(names, list) and names != list(model.names):
        raise RError(f"its R service answered coefficients of other names: {', '.join(map(str, names[:20]))}")
    return Answer(
        np.array(params, np.float64),
        None if n is None else float(n),
        {k: float(v) for k, v in metrics.items()},
    )


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, int) or not math.isnan(value))
    )
