"""The learners by name: the settings that `[model]` may hold, and the strategy that an exact learner brings along.

Sizes of inputs and outputs come from the schema, so a file does not repeat them, and a machine without rows can make a learner.

The trap is what a name imports. A coordinator needs the strategy and never the framework, so a framework is imported when its learner is asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from haina.data.schema import Schema
from haina.errors import ConfigError, LearnerError
from haina.federation import statistics
from haina.federation.made import ONCE, Make
from haina.federation.made import Made as Made
from haina.federation.schema import Duration
from haina.learners.learner import Learner
from haina.learners.models import Model
from haina.strategy.combine import Collect
from haina.strategy.server import Merge
from haina.strategy.strategy import Strategy

if TYPE_CHECKING:
    from haina.learners.r.home import Columns

Kind = Literal["logistic", "mlp", "cnn", "transformer"]
Device = Literal["cpu", "cuda", "auto"]

#: Learners that compute in float64, so that features keep all their digits.
EXACT = frozenset({"glm", "forest", "rscript", "rservice", "vector", "cox", "summary"})


def _jax(schema: Schema, folder: Path) -> Callable[..., Made]:
    def jax(
        kind: Kind = "mlp",
        hidden: tuple[int, ...] = (32,),
        layers: int = 2,
        width: int = 32,
        heads: int = 4,
        vocabulary: int = 0,
        build: str | None = None,
        local: tuple[str, ...] = (),
        shared: tuple[str, ...] = ("*",),
    ) -> Made:
        model = _model(schema, kind, hidden, layers, width, heads, vocabulary) if build is None else None

        def make() -> Learner:
            from haina.learners.jax import JaxLearner, learner

            options: dict[str, Any] = {"loss": _loss(schema), "local": local, "shared": shared}
            if local or shared != ("*",):
                options["memory"] = {}
            if model is not None:
                return learner(model, **options)
            made = user_function(cast(str, build), folder)()
            if not isinstance(made, tuple) or len(made) != 2 or not all(callable(part) for part in made):
                raise LearnerError(
                    f"{build} gave {type(made).__name__}",
                    allowed="two functions: init(key) and apply(params, x)",
                )
            return JaxLearner(*made, **options)

        return Made(make)

    return jax


def _torch(schema: Schema, folder: Path) -> Callable[..., Made]:
    def torch(
        kind: Kind = "mlp",
        hidden: tuple[int, ...] = (32,),
        layers: int = 2,
        width: int = 32,
        heads: int = 4,
        vocabulary: int = 0,
        build: str | None = None,
        local: tuple[str, ...] | None = None,
        shared: tuple[str, ...] = ("*",),
        device: Device = "cpu",
        compiled: bool = False,
    ) -> Made:
        model = _model(schema, kind, hidden, layers, width, heads, vocabulary) if build is None else None

        def make() -> Learner:
            from haina.learners.torch import TorchLearner, learner

            options: dict[str, Any] = {"loss": _loss(schema), "local": local, "shared": shared}
            options |= {"device": device, "compiled": compiled}
            if local or shared != ("*",):
                options["memory"] = {}
            if model is not None:
                return learner(model, **options)
            return TorchLearner(user_function(cast(str, build), folder), **options)

        return Made(make)

    return torch


def _auto(schema: Schema, folder: Path) -> Callable[..., Made]:
    def auto(
        kind: Kind = "mlp",
        hidden: tuple[int, ...] = (32,),
        layers: int = 2,
        width: int = 32,
        heads: int = 4,
        vocabulary: int = 0,
        build: str | None = None,
        local: tuple[str, ...] = (),
        shared: tuple[str, ...] = ("*",),
        device: Device = "auto",
    ) -> Made:
        if build is not None:
            raise LearnerError(
                f"build is {build!r}, and auto takes built-in models, which every framework has",
                allowed='learner = "jax" for two functions (init, apply), learner = "torch" for an nn.Module',
            )
        model: dict[str, Any] = {"kind": kind, "hidden": hidden, "layers": layers, "width": width}
        model |= {"heads": heads, "vocabulary": vocabulary, "shared": shared}
        in_torch = _torch(schema, folder)(**model, local=local or None, device=device)
        in_jax = _jax(schema, folder)(**model, local=local)
        return Made(
            lambda: {"torch": in_torch, "jax": in_jax}[fastest(kind, device)].learner(),
            executor=lambda: fastest(kind, device),
        )

    return auto


def fastest(kind: Kind, device: Device) -> Literal["jax", "torch"]:
    """The framework that trains a built-in model fastest here.

    On a GPU that is torch, which trains a cohort side by side, where JAX takes one client after another. On a CPU it is JAX, whose loop is compiled
    (measured, CPU time of torch over that of JAX: logistic 20, mlp 2.7, transformer 1.2 to 1.9), but for the cnn, as XLA's convolutions in a loop are
    slow (0.3). Where only one of them is installed, it is that one.

    Raises:
        LearnerError: neither is installed, or the device asked for is not there.
    """
    found = [name for name in ("jax", "torch") if importlib.util.find_spec(name) is not None]
    if not found:
        raise LearnerError(
            "neither jax nor torch is installed", remedy="Run: pip install 'haina[jax]' or 'haina[torch]'"
        )
    if device == "cuda" and "torch" not in found:
        raise LearnerError(
            'device is "cuda", which needs torch, and it is not installed',
            allowed='device = "cpu" or "auto"',
            remedy="Run: pip install 'haina[torch]'",
        )
    wanted = (
        "torch" if kind == "cnn" or (device != "cpu" and "torch" in found and _has_gpu(device)) else "jax"
    )
    return cast(Literal["jax", "torch"], wanted if wanted in found else found[0])


def _has_gpu(device: Device) -> bool:
    """True when there is a GPU that torch can use, or it was asked for; torch is imported only where the machine has a device file for one."""
    if device == "auto" and not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return False
    from haina.learners.torch.learner import device_of

    return device_of(device).type == "cuda"


def _forest(schema: Schema, folder: Path) -> Callable[..., Made]:
    def forest(
        trees: int = 100,
        max_features: int | float | Literal["sqrt"] | None = "sqrt",
        min_leaf: int = 5,
        max_depth: int | None = None,
    ) -> Made:
        from haina.learners.forest import Column, ForestLearner, Names

        classes, table = len(schema.classes or ()), schema.columns
        columns = tuple(Column(name) for name in schema.features)
        if table is not None:
            columns = tuple(Column(name, tuple(table.categorical.get(name, ()))) for name in table.features)
        learner = ForestLearner(
            "classification" if classes else "regression",
            schema.shape[0],
            classes,
            trees,
            max_features,
            min_leaf,
            max_depth,
            names=Names(columns, schema.classes or ()),
        )
        server = Merge(learner.merge)
        return Made(lambda: learner, Strategy(weigh=ONCE, combine=Collect(), server=server, name="forest"))

    return forest


def _rscript(schema: Schema, folder: Path) -> Callable[..., Made]:
    def rscript(
        script: str,
        names: tuple[str, ...] = (),
        size: int = 0,
        initial: tuple[float, ...] = (),
        timeout: float | str = 300.0,
        settings: dict[str, Any] | None = None,
    ) -> Made:
        from haina.learners.r.coefficients import Coefficients
        from haina.learners.r.learner import RLearner
        from haina.learners.r.script import RScript

        model = Coefficients(names, size, initial)
        home = RScript(folder, script, model, _columns(schema), _seconds(timeout))
        learner = RLearner("rscript", home, model, len(schema.classes or ()), settings or {})
        return Made(lambda: learner)

    return rscript


def _vector(schema: Schema, folder: Path) -> Callable[..., Made]:
    def vector(
        names: tuple[str, ...] = (),
        size: int = 0,
        initial: tuple[float, ...] = (),
        family: Literal["gaussian", "binomial", "poisson"] | None = None,
    ) -> Made:
        from haina.learners.glm import Design, GlmLearner
        from haina.learners.r.coefficients import Coefficients
        from haina.learners.vector import VectorLearner

        linear = None
        if family is not None:
            columns = schema.features or tuple(f"x{j}" for j in range(schema.shape[0]))
            linear = GlmLearner(family, Design.named(columns, not names or names[0] == "(Intercept)"))
            names = names or linear.design.names
        learner = VectorLearner(Coefficients(names, size, initial), linear)
        return Made(lambda: learner)

    return vector


def _rservice(schema: Schema, folder: Path) -> Callable[..., Made]:
    def rservice(
        r_script_url: str,
        names: tuple[str, ...] = (),
        size: int = 0,
        initial: tuple[float, ...] = (),
        timeout: float | str = 300.0,
        settings: dict[str, Any] | None = None,
        format: Literal["binary", "json"] = "binary",
    ) -> Made:
        from haina.learners.r.coefficients import Coefficients
        from haina.learners.r.learner import RLearner
        from haina.learners.r.service import RService

        model = Coefficients(names, size, initial)
        home = RService(r_script_url, model, _columns(schema), _seconds(timeout), format)
        learner = RLearner("rservice", home, model, len(schema.classes or ()), settings or {})
        return Made(lambda: learner)

    return rservice


def _columns(schema: Schema) -> Columns:
    from haina.learners.r.home import Columns

    names = schema.features or tuple(f"x{j}" for j in range(prod(schema.shape)))
    return Columns(names, schema.classes)


def _seconds(span: float | str) -> float:
    try:
        return TypeAdapter(Duration).validate_python(span)
    except ValidationError as error:
        raise LearnerError(f"timeout is {span!r}", allowed='seconds up to a year, or such as "5m"') from error


#: Every learner by its name in a federation file.
LEARNERS: Mapping[str, Make] = {
    "auto": _auto,
    "jax": _jax,
    "torch": _torch,
    "glm": statistics.glm,
    "cox": statistics.cox,
    "summary": statistics.summary,
    "forest": _forest,
    "rscript": _rscript,
    "rservice": _rservice,
    "vector": _vector,
}


def _model(schema: Schema, kind: Kind, hidden: Sequence[int], *transformer: int) -> Model:
    outputs = 1 if schema.classes is None else len(schema.classes)
    return Model(kind, schema.shape, outputs, tuple(hidden), *transformer)


def _loss(schema: Schema) -> str:
    return "squared" if schema.classes is None else "cross_entropy"


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
    return cast(Callable[[], Any], function)
