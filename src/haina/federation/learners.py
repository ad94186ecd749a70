"""The learners by name, each with the settings that `[model]` may hold, and the strategies that exact learners bring along.

Sizes of inputs and outputs come from the data, so a file does not repeat them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from haina.data.federated import Federated
from haina.errors import ConfigError, LearnerError
from haina.learners.learner import Learner
from haina.learners.models import Model

Kind = Literal["logistic", "mlp", "cnn"]

#: What `[model]` may say besides `learner`, made for some data and the folder of the file.
Make = Callable[[Federated, Path], Callable[..., Learner]]


def _jax(data: Federated, folder: Path) -> Callable[..., Learner]:
    def jax(
        kind: Kind = "mlp",
        hidden: tuple[int, ...] = (32,),
        build: str | None = None,
        local: tuple[str, ...] = (),
        shared: tuple[str, ...] = ("*",),
    ) -> Learner:
        from haina.learners.jax import JaxLearner, learner

        options: dict[str, Any] = {"loss": _loss(data), "local": local, "shared": shared}
        if local or tuple(shared) != ("*",):
            options["memory"] = {}
        if build is None:
            return learner(_model(data, kind, hidden), **options)
        made = user_function(build, folder)()
        if not isinstance(made, tuple) or len(made) != 2 or not all(callable(part) for part in made):
            raise LearnerError(
                f"{build} gave {type(made).__name__}", allowed="two functions: init(key), apply(params, x)"
            )
        return JaxLearner(*made, **options)

    return jax


def _torch(data: Federated, folder: Path) -> Callable[..., Learner]:
    def torch(
        kind: Kind = "mlp",
        hidden: tuple[int, ...] = (32,),
        build: str | None = None,
        local: tuple[str, ...] = (),
        shared: tuple[str, ...] = ("*",),
    ) -> Learner:
        from haina.learners.torch import TorchLearner, learner

        options: dict[str, Any] = {"loss": _loss(data), "local": local, "shared": shared, "memory": {}}
        if build is None:
            return learner(_model(data, kind, hidden), **options)
        return TorchLearner(user_function(build, folder), **options)

    return torch


def _glm(data: Federated, folder: Path) -> Callable[..., Learner]:
    def glm(
        family: Literal["gaussian", "binomial", "poisson"] = "gaussian",
        intercept: bool = True,
        alpha: float | None = None,
        lambdas: tuple[float, ...] | None = None,
        standardise: bool = True,
    ) -> Learner:
        from haina.learners.glm import Design, GlmLearner

        names = data.features or tuple(f"x{j}" for j in range(data.clients.x.shape[1]))
        raise NotImplementedError(names, Design, GlmLearner, alpha, lambdas, standardise)

    return glm


def _forest(data: Federated, folder: Path) -> Callable[..., Learner]:
    def forest(
        trees: int = 100,
        max_features: int | float | Literal["sqrt"] | None = "sqrt",
        min_leaf: int = 5,
        max_depth: int | None = None,
    ) -> Learner:
        from haina.learners.forest import ForestLearner

        features, classes = data.clients.x.shape[1], data.classes
        if classes is None:
            return ForestLearner("regression", features, 0, trees, max_features, min_leaf, max_depth)
        return ForestLearner(
            "classification", features, len(classes), trees, max_features, min_leaf, max_depth
        )

    return forest


def method(learner: Learner) -> Strategy | None:
    """The strategy that an exact learner brings along; None where any strategy will do."""
    return None


LEARNERS: dict[str, Make] = {"jax": _jax, "torch": _torch, "glm": _glm, "forest": _forest}


def _model(data: Federated, kind: Kind, hidden: Sequence[int]) -> Model:
    outputs = 1 if data.classes is None else len(data.classes)
    return Model(kind, data.clients.x.shape[1:], outputs, tuple(hidden))


def _loss(data: Federated) -> str:
    return "squared" if data.classes is None else "cross_entropy"


def user_function(reference: str, folder: Path) -> Callable[[], Any]:
    """`"task:build_model"` -> the function `build_model` of `task.py` in the folder of the federation file.

    Raises:
        ConfigError: the reference, the file or the function is not there.
    """
    module, colon, name = reference.partition(":")
    path = folder / f"{module}.py"
    if not colon or not module.isidentifier() or not name.isidentifier():
        raise ConfigError(
            f"build is {reference!r}", allowed='"MODULE:FUNCTION", for example "task:build_model"'
        )
    if not path.is_file():
        raise ConfigError(
            f"build names {reference!r}, and there is no file {path}",
            remedy="Put the file beside the federation file",
        )
    spec = importlib.util.spec_from_file_location(f"haina_user_{module}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    function = getattr(loaded, name, None)
    if not callable(function):
        raise ConfigError(f"{path.name} has no function {name!r}", remedy="Check the name after the colon")
    return function
