"""Report: the few numbers a client sends beside its vector.

Every number here is said by the client about itself, so it is an attack surface: rules that use a report bound what it can do (shares are
capped at 2/K, quality factors clipped to [1/2, 2]); `Report.fault` names numbers that no honest client can send.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from haina.errors import ReportError

#: More examples than this in one round is a lie or a unit error.
MAX_EXAMPLES = 1e12
#: A mean loss beyond this is no loss of a model that could be of use.
MAX_LOSS = 1e12
#: ||a||_1 beyond so many steps would need a momentum above 0.999.
MAX_MOMENTUM = 1000
#: Further numbers of the user's own.
MAX_EXTRA = 100
#: Characters of such a number's name.
MAX_NAME = 200
#: Classes that labels can be counted of.
MAX_CLASSES = 1_000_000

#: Fields that cost a client a pass over its data, or tell more of them than a count; filled only when asked for.
MEASURED = frozenset({"loss_before", "loss_after", "accuracy", "label_counts"})


@dataclass(frozen=True, slots=True)
class Report:
    """What one client says about its local training in one round.

    Args:
        examples: number of training examples n_k used; >= 1 (may be fractional after noise).
        steps: number of local optimiser steps tau_k; >= 1.
        normalizer: FedNova's ||a_k||_1 (Wang et al. 2020, sec. 4), >= 1; `steps` for plain SGD.
        learning_rate: mean local learning rate eta_k over the steps; > 0. SCAFFOLD's control step divides by `steps * learning_rate`.
        loss_before: mean training loss of the received model on local data.
        loss_after: mean training loss of the trained model on local data.
        accuracy: accuracy of the trained model on local data, in [0, 1].
        label_counts: examples per class. It reveals the label histogram; sent only when a rule needs it.
        seconds: wall seconds of local training; >= 0.
        staleness: how many versions old the model was that training began from; >= 0.
        extra: further named numbers (metrics of the user's own); shown, never used for weights.
    """

    examples: float
    steps: int = 1
    normalizer: float | None = None
    learning_rate: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    accuracy: float | None = None
    label_counts: tuple[int, ...] | None = None
    seconds: float | None = None
    staleness: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def norm_a(self) -> float:
        """||a_k||_1, or the number of steps where the client did not say."""
        return float(self.steps) if self.normalizer is None else self.normalizer

    @property
    def bare(self) -> Report:
        """What says nothing of the rows but how many there are: counts of examples and steps, and how late it came."""
        return Report(self.examples, self.steps, self.normalizer, staleness=self.staleness)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values of what was said; numbers that are not finite become null."""
        said = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"label_counts", "extra"}
        }
        out = {name: _plain(value) for name, value in said.items() if value is not None}
        if self.label_counts is not None:
            out["label_counts"] = [int(count) for count in self.label_counts]
        if self.extra:
            out["extra"] = {name: _plain(value) for name, value in self.extra.items()}
        return out

    @classmethod
    def read(cls, data: object) -> Report:
        """The inverse of `to_json`, for any JSON value whatever: names that are not known are passed over, null is what was not said.

        Raises:
            ReportError: this is no report, or one that no honest client can send.
        """
        if not isinstance(data, Mapping):
            raise ReportError(f"the report is {_kind(data)}", allowed="a table of named numbers")
        said = {f.name: data[f.name] for f in fields(cls) if data.get(f.name) is not None}
        if "examples" not in said:
            raise ReportError(
                "the report does not say how many examples were used", allowed='"examples", > 0'
            )
        counts, extra = said.pop("label_counts", None), said.pop("extra", {})
        for name, value in said.items():
            if not _is_number(value):
                raise ReportError(f"{name} is {_kind(value)}", allowed="a number")
        for name in ("steps", "staleness"):
            if isinstance(said.get(name), float) and said[name].is_integer():
                said[name] = int(said[name])
        if counts is not None:
            if not isinstance(counts, list | tuple) or not all(map(_is_number, counts)):
                raise ReportError("the label counts are not a list of numbers", allowed="whole numbers >= 0")
            said["label_counts"] = tuple(counts)
        if not isinstance(extra, Mapping) or not all(v is None or _is_number(v) for v in extra.values()):
            raise ReportError("extra is not a table of numbers", allowed="named numbers, or null")
        said["extra"] = {name: math.nan if value is None else value for name, value in extra.items()}
        report = cls(**said)
        fault = report.fault()
        if fault is not None:
            raise ReportError(f"the report is impossible: {fault}")
        return report

    def fault(self) -> str | None:
        """The first impossible number, in words; None for a usable report."""
        checks = (
            ("examples", self.examples, 0.0, MAX_EXAMPLES, False),
            ("steps", self.steps, 1.0, MAX_EXAMPLES, True),
            ("normalizer", self.normalizer, 1.0 - 1e-9, MAX_EXAMPLES, True),
            ("learning_rate", self.learning_rate, 0.0, math.inf, False),
            ("loss_before", self.loss_before, -MAX_LOSS, MAX_LOSS, True),
            ("loss_after", self.loss_after, -MAX_LOSS, MAX_LOSS, True),
            ("accuracy", self.accuracy, 0.0, 1.0, True),
            ("seconds", self.seconds, 0.0, math.inf, True),
            ("staleness", self.staleness, 0.0, MAX_EXAMPLES, True),
        )
        for name, value, low, high, closed in checks:
            if value is None:
                continue
            if not _is_finite(value):
                return f"{name} is not a finite number"
            if value > high or value < low or (value == low and not closed):
                bound = f">= {low:g}" if closed else f"> {low:g}"
                return f"{name} is {value:g}, which must be {bound}" + (
                    f" and <= {high:g}" if high < math.inf else ""
                )
        for name, whole in (("steps", self.steps), ("staleness", self.staleness)):
            if int(whole) != whole:
                return f"{name} is {whole:g}, which must be a whole number"
        if self.norm_a > MAX_MOMENTUM * self.steps:
            return f"normalizer is {self.norm_a:g} for {self.steps} steps"
        counts: object = self.label_counts
        if counts is not None:
            if not isinstance(counts, tuple | list):
                return "the label counts are not a list"
            if len(counts) > MAX_CLASSES:
                return f"there are {len(counts)} label counts, which must be <= {MAX_CLASSES}"
            for count in counts:
                if not isinstance(count, int) or not 0 <= count <= MAX_EXAMPLES:
                    return f"a label count is not a whole number in 0 to {MAX_EXAMPLES:g}"
        extra: object = self.extra
        if not isinstance(extra, Mapping) or len(extra) > MAX_EXTRA:
            return f"extra is not a table of at most {MAX_EXTRA} numbers"
        for name, value in extra.items():
            if isinstance(name, str) and len(name) > MAX_NAME:
                return f"extra number {name[:40]!r}... has a name longer than {MAX_NAME} characters"
            # A metric may be NaN; a whole number must fit where numbers fit.
            if not isinstance(name, str) or not (isinstance(value, float | np.floating) or _is_finite(value)):
                return f"extra number {str(name)[:40]!r} is not a number"
        return None


_NUMBER = (int, float, np.integer, np.floating)


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, _NUMBER) and math.isfinite(value)
    except OverflowError:
        return False


def _is_number(value: object) -> bool:
    """True for what JSON calls a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: object) -> str:
    """What a JSON value is, in words; the value itself may be endless."""
    words = {bool: "true or false", str: "text", list: "a list", dict: "a table", type(None): "null"}
    return words.get(type(value), "a number")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
