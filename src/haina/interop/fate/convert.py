"""HomoLR models as Haina keeps them, and back.

* `glm`: the exact learner's vector, `coefficients` `[1 + p]` float64, the intercept first;
* `logistic`: the built-in network of any framework, `output.weight` `[2, p]` and `output.bias` `[2]` float32, whose two outputs are the classes 0
  and 1.

Two outputs know one logit too many: softmax sees their difference only. FATE's weight w becomes -w/2 and +w/2, which is exact (halving and doubling
are, in binary) and is also where training from zero keeps them; back, it is the difference.

The trap is float32: a model of FATE 1.x or of R has doubles, which `glm` keeps and `logistic` rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from haina.artifact import Array, dump, load
from haina.errors import LayoutError
from haina.interop.fate.model import HomoLrModel

Kind = Literal["glm", "logistic"]

_HALF = 0.5


def to_bytes(model: HomoLrModel, kind: Kind) -> bytes:
    """Canonical bytes of a model (`haina.artifact`), as the learner of that kind writes them."""
    weights = np.array(model.weights)
    if kind == "glm":
        return dump({"coefficients": np.concatenate([[model.intercept], weights])})
    half = _HALF * np.append(weights, model.intercept)
    both = np.stack([-half, half]).astype(np.float32)
    return dump({"output.weight": both[:, :-1], "output.bias": both[:, -1]})


def from_bytes(data: bytes, names: Sequence[str] = ()) -> HomoLrModel:
    """The HomoLR model in the bytes of a Haina model.

    Args:
        data: of a model of either kind; a GLM must have an intercept.
        names: of the features.

    Raises:
        LayoutError: the bytes are no model, or one that HomoLR has no place for.
    """
    tensors, _ = load(data)
    names = tuple(names)
    if set(tensors) == {"coefficients"} and tensors["coefficients"].ndim == 1:
        first, *rest = tensors["coefficients"].tolist() or [0.0]
        return HomoLrModel(tuple(rest), first, names)
    if set(tensors) == {"output.weight", "output.bias"}:
        weight, bias = tensors["output.weight"].astype(np.float64), tensors["output.bias"].astype(np.float64)
        if weight.ndim == 2 and len(weight) == 2 and bias.shape == (2,):
            return HomoLrModel(_logit(weight), float(bias[1] - bias[0]), names)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in list(tensors.items())[:6])
    raise LayoutError(
        f"the model has {shapes}",
        allowed='a binomial glm (coefficients [1 + p]), or kind = "logistic" with two classes (output.weight [2, p], output.bias [2])',
        remedy="HomoLR is logistic regression; FATE has no place for another model",
    )


def _logit(weight: Array) -> tuple[float, ...]:
    return tuple((weight[1] - weight[0]).tolist())
