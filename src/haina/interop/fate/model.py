"""A HomoLR model, and the JSON in which FATE 2.x keeps it.

FATE 2.x holds a torch state: `models.0.weight` `[1, p]` and `models.0.bias` `[1]`, float32 written as JSON numbers, which is exact both ways.
Features have no names there: they are columns of the table, in order. A model of several classes is one such pair for each class against the rest;
its probabilities come from a rule of FATE's own, so it is refused and not approximated.

The same JSON is read in each of the places where FATE gives it out: the answer of `/v2/output/model/query`, the object of a task's output, and the
bare state.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haina.errors import LayoutError

_WEIGHT, _BIAS = "models.0.weight", "models.0.bias"

#: A document nests no deeper; FATE's own nest seven levels.
_DEEPEST = 32


@dataclass(frozen=True)
class HomoLrModel:
    """Logistic regression: the logit of a row x is `intercept + sum of weights * x`.

    Args:
        weights: p finite numbers.
        intercept: 0 in a model without one.
        names: of the features, in order; x0, x1, ... where they have none.
        iterations: rounds that made it.
        losses: of each round, where they were kept (1.x).
        converged: whether training stopped by itself (1.x).
        best: number of the best round (1.x).

    Raises:
        LayoutError: no features, names that do not fit, or a number that is not finite.
    """

    weights: tuple[float, ...]
    intercept: float = 0.0
    names: tuple[str, ...] = ()
    iterations: int = 0
    losses: tuple[float, ...] = field(default=())
    converged: bool = False
    best: int = 0

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(f"x{i}" for i in range(len(self.weights))))
        if not self.weights or len(set(self.names)) != len(self.weights):
            raise LayoutError(
                f"a HomoLR model has {len(self.weights)} weights and {len(set(self.names))} different names",
                allowed="one name for each weight, and at least one",
            )
        if not all(map(math.isfinite, (*self.weights, self.intercept))):
            raise LayoutError("a HomoLR model holds a number that is not finite", allowed="finite numbers")

    def named(self, names: Sequence[str]) -> HomoLrModel:
        """The same model with other names.

        Raises:
            LayoutError: another number of names, or one twice.
        """
        return HomoLrModel(
            self.weights,
            self.intercept,
            tuple(names),
            self.iterations,
            self.losses,
            self.converged,
            self.best,
        )


def read_json(text: str | bytes, names: Sequence[str] = ()) -> HomoLrModel:
    """A model of FATE 2.x.

    Args:
        text: JSON with a `state_dict` somewhere in it, or the state itself.
        names: of the features.

    Raises:
        LayoutError: no JSON, no HomoLR state or more than one, several classes, or sizes that do not fit.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LayoutError("the model is not JSON", allowed="what FATE 2.x gives for a model") from error
    states = list(_states(document))
    if len(states) != 1:
        raise LayoutError(
            f"the document holds {len(states)} states of a HomoLR model",
            allowed=f"one, with {_WEIGHT} and {_BIAS}",
            remedy="Ask FATE for the output model of a HomoLR task",
        )
    state = states[0]
    if any(name not in (_WEIGHT, _BIAS) for name in state):
        raise LayoutError(
            f"the model has tensors {', '.join(sorted(map(str, state)))[:200]}",
            allowed=f"{_WEIGHT} and {_BIAS}",
            remedy="A model of several classes (ovr) cannot be read",
        )
    weight = state[_WEIGHT]
    if not isinstance(weight, list) or len(weight) != 1:
        raise LayoutError(f"{_WEIGHT} is no matrix of one row", allowed="[1, p]")
    bias = _numbers(_BIAS, state.get(_BIAS, [0.0]))
    if len(bias) != 1:
        raise LayoutError(f"{_BIAS} has {len(bias)} numbers", allowed="1")
    return HomoLrModel(_numbers(_WEIGHT, weight[0]), bias[0], tuple(names))


def write_json(model: HomoLrModel) -> str:
    """The output model of a HomoLR task of FATE 2.x, as `warm_start_model` takes it. Numbers keep float64's digits; FATE rounds them to float32."""
    meta = {"label_num": None, "ovr": False, "threshold": 0.5, "max_iter": model.iterations}
    state = {_WEIGHT: [list(model.weights)], _BIAS: [model.intercept]}
    network = {"feature_num": len(model.weights), "label_num": 1, "state_dict": state}
    document = {"output_model": {"meta": meta, "param": {"model": network}}}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _states(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Every object that holds a HomoLR weight, wherever it lies."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        if _WEIGHT in value:
            yield value
        for inner in value.values():
            yield from _states(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _states(inner, depth + 1)


def _numbers(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(type(one) in (int, float) for one in value):
        raise LayoutError(f"{name} is no list of numbers", remedy="The file is damaged, or no HomoLR model")
    return tuple(float(one) for one in value)
